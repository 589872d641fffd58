// Files of API keys, and whose a key is.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "src/server/http_server.h"

namespace loopserve::server {
namespace {

TEST(ApiKeysTest, FilesAndTenants) {
  const std::string path = testing::TempDir() + "/keys_" + std::to_string(getpid());
  EXPECT_EQ(ReadApiKeys(path).status().code(), StatusCode::kNotFound);
  const auto write = [&](const std::string& text) { std::ofstream(path) << text; };
  write("# nothing\n\n");
  EXPECT_EQ(ReadApiKeys(path).status().code(), StatusCode::kInvalidArgument);
  write("with space\n");
  EXPECT_EQ(ReadApiKeys(path).status().code(), StatusCode::kInvalidArgument);
  write("# mine\nkey-one\r\nkey-two");
  const auto keys = ReadApiKeys(path);
  ASSERT_TRUE(keys.ok());
  EXPECT_EQ(*keys, (std::vector<std::string>{"key-one", "key-two"}));
  const ApiKeys tenants(*keys);
  EXPECT_TRUE(tenants.TenantOf("key-one").has_value());
  EXPECT_NE(tenants.TenantOf("key-one"), tenants.TenantOf("key-two"));
  EXPECT_FALSE(tenants.TenantOf("key-on").has_value());
  EXPECT_FALSE(tenants.TenantOf("").has_value());
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace loopserve::server
