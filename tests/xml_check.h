// Whether a page is well-formed: every tag closed, in order, attributes quoted, no stray < or &.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace dspark::test {

// What is wrong first, with some text around it; empty when nothing is. Knows the subset of XML that our
// reports are written in: no comments, one doctype line.
inline std::string XmlError(std::string_view page) {
  std::vector<std::string> open;
  const auto at = [&](size_t i, const char* what) {
    return std::string(what) + ": " + std::string(page.substr(i < 40 ? 0 : i - 40, 90));
  };
  for (size_t i = 0; i < page.size(); ++i) {
    if (page[i] == '&' && page.substr(i, 8).find(';') == std::string_view::npos) return at(i, "stray &");
    if (page[i] == '>') return at(i, "stray >");
    if (page[i] != '<') continue;
    size_t end = i + 1;
    for (bool quoted = false; end < page.size() && (quoted || page[end] != '>'); ++end) {
      if (page[end] == '"') quoted = !quoted;
      if (page[end] == '<') return at(i, "< inside a tag");
    }
    if (end == page.size()) return at(i, "a tag without an end");
    const std::string_view tag = page.substr(i + 1, end - i - 1);
    i = end;
    if (tag.starts_with("!DOCTYPE") || tag.ends_with("/")) continue;
    if (!tag.starts_with("/")) {
      open.emplace_back(tag.substr(0, tag.find(' ')));
    } else if (open.empty() || open.back() != tag.substr(1)) {
      return at(i, "a tag closed out of order");
    } else {
      open.pop_back();
    }
  }
  return open.empty() ? "" : "not closed: " + open.back();
}

}  // namespace dspark::test
