#pragma once

#include <string_view>

namespace dspark {

// page.html, which the build turns into source text.
extern const std::string_view kPage;

}  // namespace dspark
