// The main of every test binary. Suites named Model* need the default model, Golden* the golden data; where
// those are missing the tests skip, and a line at the very end says so loudly.
#include <gtest/gtest.h>

#include <cstdio>

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const int failed = RUN_ALL_TESTS();
  const int skipped = testing::UnitTest::GetInstance()->skipped_test_count();
  if (skipped > 0) std::printf("\n*** %d TESTS WERE SKIPPED: see their messages above ***\n", skipped);
  return failed;
}
