#include "tests/cuda_on_cpu/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

namespace emulation {

Watch watch;
constinit thread_local std::uintptr_t device_stack = 0;

namespace {

constexpr std::uint64_t eight_times(std::uint8_t bits) { return bits * 0x0101010101010101u; }

void* reserve(std::size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return memory == MAP_FAILED ? nullptr : memory;
}

/// Zeros, without the pages that lie wholly inside.
void clear_pages(void* memory, std::size_t bytes) {
  constexpr std::uintptr_t kPage = 4096;
  const auto begin = reinterpret_cast<std::uintptr_t>(memory), end = begin + bytes;
  const std::uintptr_t first = (begin + kPage - 1) / kPage * kPage, last = end / kPage * kPage;
  if (last <= first || madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED) != 0) {
    std::memset(memory, 0, bytes);
    return;
  }
  std::memset(memory, 0, first - begin);
  std::memset(reinterpret_cast<void*>(last), 0, end - last);
}

std::string count_of(std::size_t bytes) { return std::to_string(bytes) + (bytes == 1 ? " byte" : " bytes"); }

}  // namespace

Memory the_memory;

Memory::Memory() {
  for (std::size_t bytes = std::size_t{4} << 30; bytes >= std::size_t{1} << 30; bytes /= 2) {  // address space only
    void *device = reserve(bytes), *shadow = reserve(bytes + 64);
    if (device != nullptr && shadow != nullptr) {
      watch.memory = reinterpret_cast<std::uintptr_t>(device);
      watch.bytes = bytes;
      watch.shadow = static_cast<std::uint8_t*>(shadow);
      permit_all();
      return;
    }
    if (device != nullptr) munmap(device, bytes);
    if (shadow != nullptr) munmap(shadow, bytes + 64);
  }
  throw std::bad_alloc();
}

void* Memory::allocate(std::size_t bytes) {
  if (bytes > options().memory || used_ > options().memory - bytes) return nullptr;
  const std::size_t span = (bytes + 255) / 256 * 256 + kGap;
  // Addresses come into use again as late as possible, so that whoever uses freed memory is found.
  for (int round = 0; round < 2; ++round) {
    auto after = live_.lower_bound(next_);
    while (after != live_.end() && after->first - next_ < span) {
      next_ = (after->first + after->second.bytes + 255) / 256 * 256 + kGap;
      ++after;
    }
    if (next_ + span <= watch.bytes) break;
    if (round == 1) return nullptr;
    next_ = kSharedWindow + kGap;
    freed_.clear();
  }
  const std::size_t offset = next_;
  next_ += span;
  used_ += bytes;
  live_[offset] = {bytes, ++count_};
  mark(at(offset), bytes, kAllocated, 0xff);
  return at(offset);
}

bool Memory::free(void* memory) {
  const auto found = live_.find(reinterpret_cast<std::uintptr_t>(memory) - watch.memory);
  if (found == live_.end()) return false;
  clear_pages(memory, found->second.bytes);
  clear_pages(watch.shadow + found->first, found->second.bytes);
  used_ -= found->second.bytes;
  freed_.insert(live_.extract(found));
  return true;
}

void Memory::mark(const void* data, std::size_t bytes, std::uint8_t set, std::uint8_t clear) {
  std::uint8_t* const shadow = watch.shadow + (reinterpret_cast<std::uintptr_t>(data) - watch.memory);
  if (clear == 0xff) {
    std::memset(shadow, set, bytes);
  } else {
    for (std::size_t i = 0; i < bytes; ++i) shadow[i] = static_cast<std::uint8_t>((shadow[i] & ~clear) | set);
  }
}

// ---- shared memory

void Memory::begin_launch(std::size_t dynamic_shared) {
  shared_.clear();
  if (dynamic_shared > 0) shared_.push_back({nullptr, kDynamic, dynamic_shared});
}

void Memory::begin_block() {
  for (const Shared& shared : shared_) mark(at(shared.offset), shared.bytes, kAllocated | kReadable | kWritable, 0xff);
}

void Memory::end_launch() {
  for (const Shared& shared : shared_) mark(at(shared.offset), shared.bytes, 0, 0xff);
  shared_.clear();
}

void* Memory::static_shared(const void* key, std::size_t bytes) {
  std::size_t offset = kStatic, sum = bytes;
  for (const Shared& shared : shared_) {
    if (shared.key == key) return at(shared.offset);
    if (shared.key == nullptr) continue;
    offset = std::max(offset, (shared.offset + shared.bytes + 127) / 128 * 128 + 1024);
    sum += shared.bytes;
  }
  if (sum > kMostStaticShared) return nullptr;
  shared_.push_back({key, offset, bytes});
  mark(at(offset), bytes, kAllocated | kReadable | kWritable, 0xff);
  return at(offset);
}

// ---- Access

void Memory::restrict(std::vector<Range> readable, std::vector<Range> writable, const std::vector<Range>& fresh) {
  readable_ = std::move(readable);
  writable_ = std::move(writable);
  for (const Range& range : fresh) mark(range.data, range.bytes, 0, kWritten);
  for (const Range& range : readable_) mark(range.data, range.bytes, kReadable, 0);
  for (const Range& range : writable_) mark(range.data, range.bytes, kReadable | kWritable, 0);
  watch.read_bits = eight_times(kAllocated | kWritten | kReadable);
  watch.write_bits = eight_times(kAllocated | kWritable);
}

void Memory::permit_all() {
  for (const std::vector<Range>* ranges : {&readable_, &writable_})
    for (const Range& range : *ranges) mark(range.data, range.bytes, 0, kReadable | kWritable);
  readable_.clear();
  writable_.clear();
  watch.read_bits = eight_times(kAllocated | kWritten);
  watch.write_bits = eight_times(kAllocated);
}

std::size_t Memory::count_unwritten(const void* data, std::size_t bytes) const {
  const std::uint8_t* const shadow = watch.shadow + (reinterpret_cast<std::uintptr_t>(data) - watch.memory);
  return static_cast<std::size_t>(std::count_if(shadow, shadow + bytes, [](std::uint8_t s) { return (s & kWritten) == 0; }));
}

// ---- accesses

bool Memory::allows(const void* data, std::size_t bytes, bool write) {
  const std::size_t offset = reinterpret_cast<std::uintptr_t>(data) - watch.memory;
  if (offset >= watch.bytes || bytes > watch.bytes - offset) return false;
  std::uint8_t* const shadow = watch.shadow + offset;
  const std::uint64_t need = write ? watch.write_bits : watch.read_bits;
  std::uint64_t all = ~std::uint64_t{0}, eight;
  std::size_t i = 0;
  for (; i + 8 <= bytes; i += 8) {
    std::memcpy(&eight, shadow + i, 8);
    all &= eight;
  }
  for (; i < bytes; ++i) all &= eight_times(shadow[i]);
  if ((all & need) != need) return false;
  if (write)
    for (i = 0; i < bytes; ++i) shadow[i] |= kWritten;
  return true;
}

std::string Memory::place(std::size_t offset) const {
  const auto beside = [&](std::size_t begin, std::size_t bytes, const std::string& what) {
    if (offset < begin) return count_of(begin - offset) + " before " + what;
    if (offset - begin < bytes) return "at offset " + std::to_string(offset - begin) + " of " + what;
    return count_of(offset - begin - bytes) + " after the end of " + what;
  };
  const auto distance = [&](std::size_t begin, std::size_t bytes) {
    return offset < begin ? begin - offset : offset - begin < bytes ? 0 : offset - begin - bytes + 1;
  };
  std::size_t least = SIZE_MAX;
  std::string nearest = "where nothing is";
  const auto consider = [&](std::size_t begin, std::size_t bytes, const std::string& what) {
    if (distance(begin, bytes) >= least) return;
    least = distance(begin, bytes);
    nearest = beside(begin, bytes, what);
  };
  if (is_shared(offset)) {
    for (const Shared& shared : shared_)
      consider(
          shared.offset, shared.bytes,
          std::string(shared.key == nullptr ? "the dynamic" : "a static array in") + " shared memory, " + count_of(shared.bytes));
    return nearest;
  }
  for (const std::vector<Range>* ranges : {&readable_, &writable_})
    for (const Range& range : *ranges)
      consider(reinterpret_cast<std::uintptr_t>(range.data) - watch.memory, range.bytes, range.name + ", " + count_of(range.bytes));
  if (least == 0) return nearest;
  if (readable_.empty() && writable_.empty())
    for (const auto& [begin, block] : live_)
      consider(begin, block.bytes, "allocation " + std::to_string(block.number) + ", " + count_of(block.bytes));
  return nearest;
}

Memory::Verdict Memory::judge(const void* data, std::size_t bytes, bool write) const {
  const std::string what = (write ? "writes " : "reads ") + count_of(bytes) + " ";
  const auto address = reinterpret_cast<std::uintptr_t>(data);
  std::size_t offset = address - watch.memory;
  const auto need = static_cast<std::uint8_t>(write ? watch.write_bits : watch.read_bits);
  std::size_t end = offset + bytes;
  while (offset < end && offset < watch.bytes && (watch.shadow[offset] & need) == need) ++offset;
  const std::uint8_t shadow = offset < watch.bytes ? watch.shadow[offset] : 0;

  if ((shadow & kAllocated) == 0) {
    if (const auto after = freed_.upper_bound(offset); after != freed_.begin()) {
      const auto& [begin, block] = *std::prev(after);
      if (offset - begin < block.bytes) {
        return {FaultKind::use_after_free, what + "at offset " + std::to_string(offset - begin) + " of allocation " +
                                               std::to_string(block.number) + ", " + count_of(block.bytes) + ", which was freed"};
      }
    }
    return {FaultKind::out_of_bounds, what + "out of bounds, " + place(offset)};
  }
  if (write ? (shadow & kWritable) == 0
            : (shadow & kReadable) == 0 && watch.read_bits == eight_times(kAllocated | kWritten | kReadable))
    return {FaultKind::forbidden, what + "where it may not, " + place(offset)};
  return {FaultKind::unwritten, what + "that nothing has written, " + place(offset)};
}

}  // namespace emulation
