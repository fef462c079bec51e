#pragma once
// Memory that ends where a page does that nobody may touch: who reads or writes on is stopped by a signal.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>

namespace graft::testing {

class AtTheEnd {
 public:
  explicit AtTheEnd(std::size_t bytes) {
    const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE)), before = (bytes + page - 1) / page * page;
    size_ = before + page;
    memory_ = static_cast<char*>(mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    EXPECT_NE(memory_, MAP_FAILED);
    EXPECT_EQ(mprotect(memory_ + before, page, PROT_NONE), 0);
    data_ = memory_ + before - bytes;
  }
  ~AtTheEnd() { munmap(memory_, size_); }
  AtTheEnd(const AtTheEnd&) = delete;
  AtTheEnd& operator=(const AtTheEnd&) = delete;
  char* data() { return data_; }

 private:
  char *memory_, *data_;
  std::size_t size_;
};

}  // namespace graft::testing
