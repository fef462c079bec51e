#pragma once
#include <cstdio>
#include <exception>

#include "graft/error.h"

/// The main function of a program: what `body` returns; an Error is one line on stderr and exit code 1, any other exception one and 3.
template <class Body>
int run_program(const char* name, Body body) {
  try {
    return body();
  } catch (const graft::Error& error) {
    std::fprintf(stderr, "%s: %s\n", name, error.what());
    return 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", name, error.what());
    return 3;
  }
}
