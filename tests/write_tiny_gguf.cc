// write_tiny_gguf FILE: the tests' tiny model, for tests that are scripts.
#include <cstdio>

#include "tiny_gguf.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s FILE\n", argv[0]);
    return 2;
  }
  dspark::test::WriteFile(argv[1], dspark::test::BuildTinyLlama(1).Build());
}
