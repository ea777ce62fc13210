// Any bytes as a row of conversations: what is read is written as a row that reads the same.
#include <cstdint>

#include "core/check.h"
#include "data/conversation.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace dspark;
  const auto read = ParseConversation({reinterpret_cast<const char*>(data), size});
  if (!read) return 0;
  const std::string line = ConversationLine(*read);
  const auto again = ParseConversation(line);
  DSPARK_CHECK(again.ok());
  DSPARK_CHECK(again->id == read->id && again->messages.size() == read->messages.size());
  for (size_t i = 0; i < read->messages.size(); ++i) {
    DSPARK_CHECK(again->messages[i].role == read->messages[i].role);
    DSPARK_CHECK(again->messages[i].content == read->messages[i].content);
  }
  DSPARK_CHECK(ConversationLine(*again) == line);
  return 0;
}
