#pragma once
#include <sys/types.h>

#include <cstdio>
#include <string>

/// PyTorch in a process of its own (peer_torch.py), so that both sides of a comparison run in turn on the same machine. It is stopped
/// (SIGSTOP) while it is not asked: its threads spin for work, and would take the cores from the other side.
class Peer {
 public:
  /// Starts `python script threads`. Throws graft::Error when it cannot, or has no PyTorch.
  Peer(const std::string& python, const std::string& script, int threads);
  ~Peer();
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  /// "torch 2.5.1".
  const std::string& description() const { return description_; }
  /// Sends a command line, returns the answer; throws graft::Error with the peer's message when it failed.
  std::string ask(const std::string& command);
  /// Seconds of one run of what was set up last.
  double run();

 private:
  pid_t process_ = -1;
  std::FILE* to_ = nullptr;
  std::FILE* from_ = nullptr;
  std::string description_;
};
