#include "tests/cuda_on_cpu/symbols.h"

#include <cxxabi.h>
#include <elf.h>
#include <link.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <vector>

namespace emulation {
namespace {

/// Where this program lies in memory.
struct Image {
  std::uintptr_t base = 0;
  std::vector<std::pair<std::uintptr_t, std::size_t>> constants;
};

const Image& image() {
  static const Image found = [] {
    Image all;
    dl_iterate_phdr(
        [](dl_phdr_info* info, std::size_t, void* to) {
          auto& result = *static_cast<Image*>(to);
          result.base = info->dlpi_addr;
          for (int i = 0; i < info->dlpi_phnum; ++i) {
            const auto& part = info->dlpi_phdr[i];
            if ((part.p_type == PT_LOAD && (part.p_flags & PF_W) == 0) || part.p_type == PT_GNU_RELRO)
              result.constants.emplace_back(info->dlpi_addr + part.p_vaddr, part.p_memsz);
          }
          return 1;  // the program itself comes first
        },
        &all);
    return all;
  }();
  return found;
}

/// The functions in the symbol table of the program's file, by address before it is loaded.
const std::map<std::uintptr_t, std::string>& functions() {
  static const std::map<std::uintptr_t, std::string> found = [] {
    std::map<std::uintptr_t, std::string> all;
    std::ifstream file("/proc/self/exe", std::ios::binary);
    std::ostringstream bytes;
    bytes << file.rdbuf();
    const std::string text = bytes.str();
    const auto* header = reinterpret_cast<const ElfW(Ehdr)*>(text.data());
    const auto* sections = reinterpret_cast<const ElfW(Shdr)*>(text.data() + header->e_shoff);
    for (int s = 0; s < header->e_shnum; ++s) {
      if (sections[s].sh_type != SHT_SYMTAB) continue;
      const auto* symbols = reinterpret_cast<const ElfW(Sym)*>(text.data() + sections[s].sh_offset);
      const char* names = text.data() + sections[sections[s].sh_link].sh_offset;
      for (std::size_t i = 0; i < sections[s].sh_size / sizeof(ElfW(Sym)); ++i)
        if ((symbols[i].st_info & 0xf) == STT_FUNC && symbols[i].st_value != 0)
          all.emplace(symbols[i].st_value, names + symbols[i].st_name);
    }
    return all;
  }();
  return found;
}

}  // namespace

std::string function_name(const void* function) {
  const auto found = functions().find(reinterpret_cast<std::uintptr_t>(function) - image().base);
  if (found == functions().end()) return "kernel";
  const std::unique_ptr<char, decltype(&std::free)> name(abi::__cxa_demangle(found->second.c_str(), nullptr, nullptr, nullptr),
                                                         &std::free);
  std::string text = name == nullptr ? found->second : name.get();
  for (const std::string& noise : {std::string("(anonymous namespace)::"), std::string("void ")})
    for (std::size_t at; (at = text.find(noise)) != std::string::npos;) text.erase(at, noise.size());
  int depth = 0;  // the parameters go
  for (std::size_t i = text.size(); i-- > 0;) {
    depth += text[i] == ')' ? 1 : text[i] == '(' ? -1 : 0;
    if (depth == 0 && text[i] == '(') return text.substr(0, i);
  }
  return text;
}

std::string short_file(const std::string& path) {
  const std::size_t name = path.rfind('/');
  const std::size_t folder = name == std::string::npos || name == 0 ? name : path.rfind('/', name - 1);
  return folder == std::string::npos ? path : path.substr(folder + 1);
}

std::string hexadecimal(unsigned long number) {
  char text[24];
  std::snprintf(text, sizeof(text), "0x%lx", number);
  return text;
}

std::string source_lines(const void* code) {
  const std::string address = hexadecimal(reinterpret_cast<std::uintptr_t>(code) - image().base - 1);
  const std::string command = "addr2line -i -e /proc/" + std::to_string(getpid()) + "/exe " + address + " 2>/dev/null";
  std::string lines;
  if (FILE* pipe = popen(command.c_str(), "r")) {
    char line[4096];
    while (std::fgets(line, sizeof(line), pipe) != nullptr) {
      std::string text = short_file(line);
      text.erase(text.find_last_not_of("\n") + 1);
      if (text.find("include/") == std::string::npos && text.find('?') == std::string::npos)
        lines += (lines.empty() ? "  at " : ", from ") + text;
    }
    pclose(pipe);
  }
  return lines.empty() ? "  at " + address + " of the program" : lines;
}

bool is_constant(const void* data, std::size_t bytes) {
  const auto address = reinterpret_cast<std::uintptr_t>(data);
  const auto& parts = image().constants;
  return std::any_of(parts.begin(), parts.end(), [&](const auto& part) {
    return address - part.first < part.second && bytes <= part.second - (address - part.first);
  });
}

}  // namespace emulation
