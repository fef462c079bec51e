// The process that tests/checkpoint_kill_test.cc kills: killed_run FOLDER LAST_STEP trains and saves up to that step. Before
// each save it writes a byte to stdout.
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <string>

#include "tests/killed_run.h"

int main(int argc, char** argv) {
  try {
    if (argc != 3) throw graft::Error("killed_run FOLDER LAST_STEP");
    graft::testing::KilledRun run(argv[1]);
    while (run.steps() < std::stoll(argv[2])) {
      const double loss = run.step();
      if (::write(STDOUT_FILENO, ".", 1) != 1) throw graft::Error("nobody listens");
      run.save(loss);
    }
    run.flush();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "killed_run: %s\n", error.what());
    return 1;
  }
}
