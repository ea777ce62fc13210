#include "apps/output.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace dspark {
namespace {

int g_lost = 0;  // errno of the first write that failed: stdout itself only remembers that there was one

}  // namespace

void WriteOutput(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() && g_lost == 0) g_lost = errno;
}

void WriteMessage(std::string_view text) { std::fwrite(text.data(), 1, text.size(), stderr); }

Status FlushOutput() {
  if (std::fflush(stdout) != 0 && g_lost == 0) g_lost = errno;
  if (std::ferror(stdout) && g_lost == 0) g_lost = EIO;  // what others wrote: CLI11 prints --help itself
  if (g_lost == 0) return {};
  return MakeError("cannot write to standard output: {}; some of the output is lost", std::strerror(g_lost));
}

void OpenStandardStreams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(stream, F_GETFD) >= 0) continue;
    // open takes the lowest free number: this stream's. Reading the first or writing the others then fails.
    if (open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0) return;
  }
}

}  // namespace dspark
