# Turns the ```cpp blocks of a page into a C++ file: awk -v page=NAME -f blocks.awk PAGE.md. What the words behind cpp mean is in docs/README.md.
#   ```cpp           a program: its main is called
#   ```cpp global    functions and types, for the blocks below it
#   ```cpp fragment  statements; all fragments of a page are one function, so that later ones see the names of earlier ones
#   ```cpp block     the same, but its own names end with it
# Includes go to the top. Errors of the compiler name the line of the page.
function fail(what) { printf "%s:%d: %s\n", FILENAME, FNR, what > "/dev/stderr"; failed = 1; exit 1 }
function place() { return "#line " FNR + 1 " \"" FILENAME "\"\n" }
/^ *```/ && kind == "" {
  language = $0
  sub(/^ *```/, "", language)
  if (language ~ /^(c\+\+|C\+\+|cc|cxx)/) fail("C++ blocks begin with ```cpp, so that they are compiled")
  if (language !~ /^cpp( |$)/) { kind = "other"; next }
  kind = language == "cpp" ? "program" : substr(language, 5)
  if (kind !~ /^(program|global|fragment|block)$/) fail("```cpp may be followed by global, fragment or block, got \"" kind "\"")
  text = ""
  begin = place()
  next
}
/^ *``` *$/ && kind != "" {
  if (kind == "program") {
    if (!sub(/int main\(\)/, "int page_main()", text)) fail("a program has an int main(), a part of one is ```cpp fragment")
    if (text !~ /\n}\n$/) fail("a program ends with its main")
    sub(/\n}\n$/, "\nreturn 0;\n}\n", text)  # as main does by itself
    programs++
    globals = globals "namespace program_" programs " {\n" begin text "}\n"
    calls = calls "  if (program_" programs "::page_main() != 0) throw std::runtime_error(\"a program of " FILENAME " failed\");\n"
  }
  if (kind == "global") globals = globals begin text
  if (kind == "fragment") fragments = fragments begin text
  if (kind == "block") fragments = fragments "{\n" begin text "}\n"
  if (kind != "other") blocks++
  kind = ""
  next
}
kind == "program" || kind == "global" {
  if ($0 ~ /^#include/) { includes = includes $0 "\n"; text = text "\n"; next }
}
kind != "" && kind != "other" { text = text $0 "\n" }
END {
  if (failed) exit 1
  if (kind != "") fail("a block that does not end")
  printf "// Made from %s by tests/docs/blocks.awk.\n#include <algorithm>\n#include <cstdio>\n#include <cstring>\n#include <filesystem>\n#include <stdexcept>\n#include <graft/graft.h>\n%s", FILENAME, includes
  printf "namespace page_%s {\nusing namespace graft;\n%svoid run() {\n%s%s}\n}\n", page, globals, calls, fragments
  printf "int blocks_of_%s() {\n  page_%s::run();\n  return %d;\n}\n", page, page, blocks
}
