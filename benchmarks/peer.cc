#include "benchmarks/peer.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "graft/error.h"

Peer::Peer(const std::string& python, const std::string& script, int threads) {
  int to[2], from[2];
  if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0) throw graft::Error("peer: cannot make a pipe");
  std::signal(SIGPIPE, SIG_IGN);
  process_ = fork();
  if (process_ == 0) {
    dup2(to[0], STDIN_FILENO);
    dup2(from[1], STDOUT_FILENO);
    const std::string count = std::to_string(threads);
    execlp(python.c_str(), python.c_str(), script.c_str(), count.c_str(), static_cast<char*>(nullptr));
    _exit(127);
  }
  close(to[0]);
  close(from[1]);
  to_ = fdopen(to[1], "w");
  from_ = fdopen(from[0], "r");
  description_ = ask("describe");
}

Peer::~Peer() {
  if (process_ > 0) kill(process_, SIGCONT);
  if (to_ != nullptr) std::fclose(to_);
  if (from_ != nullptr) std::fclose(from_);
  if (process_ > 0) waitpid(process_, nullptr, 0);
}

std::string Peer::ask(const std::string& command) {
  kill(process_, SIGCONT);
  std::fprintf(to_, "%s\n", command.c_str());
  std::fflush(to_);
  std::string line;
  for (int c = std::fgetc(from_); c != EOF && c != '\n'; c = std::fgetc(from_)) line += static_cast<char>(c);
  kill(process_, SIGSTOP);
  if (line.starts_with("ok ")) return line.substr(3);
  throw graft::Error("peer: " + (line.empty() ? std::string("it ended; is PyTorch installed for this Python?") : line));
}

double Peer::run() { return std::stod(ask("run")); }
