// Several processes of a test program, each running one test: for what happens between processes.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "temp_dir.h"
#include "test_data.h"
#include "train/process_place.h"

namespace dspark::test {

// A port of 127.0.0.1 that nobody listens at.
inline int FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  const bool bound = bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                     getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  close(fd);
  return bound ? ntohs(address.sin_port) : 0;
}

class Processes {
 public:
  // Starts `world` processes that run the test `name` with these environment variables.
  Processes(int world, const std::string& name, const std::map<std::string, std::string>& variables) {
    const std::string port = std::to_string(FreePort());
    for (int rank = 0; rank < world; ++rank) {
      const std::string log = dir_.path() + "/log" + std::to_string(rank);
      const pid_t child = fork();
      if (child == 0) {
        for (const auto& [key, value] : variables) setenv(key.c_str(), value.c_str(), 1);
        setenv("DSPARK_TEST_RANK", std::to_string(rank).c_str(), 1);
        setenv("DSPARK_TEST_WORLD", std::to_string(world).c_str(), 1);
        setenv("DSPARK_TEST_PORT", port.c_str(), 1);
        setenv("DSPARK_TEST_RESULT", ResultFile(rank).c_str(), 1);
        if (!std::freopen(log.c_str(), "w", stdout) || dup2(1, 2) < 0) _exit(126);
        execl("/proc/self/exe", "child", ("--gtest_filter=" + name).c_str(), "--gtest_brief=1", nullptr);
        _exit(127);
      }
      children_.push_back(child);
    }
  }
  ~Processes() { Wait(); }

  void Kill(int rank) { kill(children_[size_t(rank)], SIGKILL); }
  // Until all have ended; true when all ended well.
  bool Wait() {
    for (pid_t& child : children_) {
      int status = 0;
      if (child > 0 && waitpid(child, &status, 0) == child) {
        well_ = well_ && WIFEXITED(status) && WEXITSTATUS(status) == 0;
      }
      child = 0;
    }
    return well_;
  }
  // What each wrote with WriteResult; its output where it wrote nothing.
  std::vector<std::string> results() const {
    std::vector<std::string> all;
    for (size_t rank = 0; rank < children_.size(); ++rank) {
      std::string text = Read(ResultFile(int(rank)));
      all.push_back(text.empty() ? Read(dir_.path() + "/log" + std::to_string(rank)) : text);
    }
    return all;
  }

 private:
  std::string ResultFile(int rank) const { return dir_.path() + "/result" + std::to_string(rank); }
  static std::string Read(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  TempDir dir_;
  std::vector<pid_t> children_;
  bool well_ = true;
};

// In a child: its place among the others.
inline ProcessPlace PlaceFromEnvironment() {
  const auto number = [](const char* name) { return std::stoi(FromEnvironment(name, "0")); };
  return {.rank = number("DSPARK_TEST_RANK"),
          .world = number("DSPARK_TEST_WORLD"),
          .on_this_machine = number("DSPARK_TEST_WORLD"),
          .host = "127.0.0.1",
          .port = number("DSPARK_TEST_PORT"),
          .store_is_there = false,
          .prefix = {},
          .interface = {}};
}

// In a child: what Processes::results gives.
inline void WriteResult(const std::string& text) {
  std::ofstream(FromEnvironment("DSPARK_TEST_RESULT", "/dev/null")) << text;
}

}  // namespace dspark::test
