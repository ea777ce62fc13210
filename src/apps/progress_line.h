// How far a long command is, on stderr: one line kept up to date on a terminal, elsewhere a new line now and
// then.
#pragma once

#include <string>

#include "core/function_ref.h"

namespace dspark {

class ProgressLine {
 public:
  // `terminal`: whether stderr is one.
  ProgressLine();
  explicit ProgressLine(bool terminal) : terminal_(terminal) {}
  ~ProgressLine();  // a line that is still there is ended

  // Shows `text`, one line without its newline, if the last one is half a second old on a terminal, half a
  // minute elsewhere. Asks for the text only then. The first one counts from the beginning.
  void Show(FunctionRef<std::string()> text);
  // On a terminal: shows `text` at once, until the next one or Clear.
  void Begin(const std::string& text);
  // Shows `text` at once, and stays.
  void Finish(const std::string& text);
  // On a terminal: takes the line away.
  void Clear();

 private:
  const bool terminal_;
  bool shown_ = false;  // on a terminal: there is a line
  double shown_ms_ = Now();
  static double Now();
};

}  // namespace dspark
