#include "apps/progress_line.h"

#include <unistd.h>

#include "apps/output.h"
#include "core/clock.h"

namespace dspark {
namespace {

constexpr char kBack[] = "\r\x1b[K";  // to the line's beginning, and what was there is gone

}  // namespace

double ProgressLine::Now() { return NowMs(); }

ProgressLine::ProgressLine() : ProgressLine(isatty(STDERR_FILENO) == 1) {}

ProgressLine::~ProgressLine() {
  if (shown_) WriteMessage("\n");
}

void ProgressLine::Show(FunctionRef<std::string()> text) {
  const double now = Now();
  if (now - shown_ms_ < (terminal_ ? 500 : 30000)) return;
  shown_ms_ = now;
  shown_ = terminal_;
  PrintMessage("{}{}{}", terminal_ ? kBack : "", text(), terminal_ ? "" : "\n");
}

void ProgressLine::Begin(const std::string& text) {
  if (!terminal_) return;
  PrintMessage("{}{}", kBack, text);
  shown_ = true;
  shown_ms_ = Now();
}

void ProgressLine::Finish(const std::string& text) {
  PrintMessage("{}{}\n", terminal_ ? kBack : "", text);
  shown_ = false;
  shown_ms_ = Now();
}

void ProgressLine::Clear() {
  if (shown_) WriteMessage(kBack);
  shown_ = false;
}

}  // namespace dspark
