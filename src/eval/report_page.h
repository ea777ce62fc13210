// What our HTML reports share: the page's head with its style sheet, and legends.
#pragma once

#include <string>
#include <vector>

namespace dspark {

// From the doctype to the page's heading; </body></html> ends the page. One file, for light and dark screens.
std::string PageHead(const std::string& title, const std::string& heading);

// <ul> of line samples and names.
std::string Legend(const std::vector<std::string>& names);

}  // namespace dspark
