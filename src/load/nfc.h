// Unicode normalisation form C (UAX #15), which Qwen's tokenizers apply before anything else.
#pragma once

#include <string>
#include <string_view>

namespace dspark {

// True when `text` (valid UTF-8) is certainly in NFC already: it holds nothing from U+0300 on.
bool IsPlainNfc(std::string_view text);

// `text` is valid UTF-8. O(n log n), whatever the order of its combining marks.
std::string Nfc(std::string_view text);

}  // namespace dspark
