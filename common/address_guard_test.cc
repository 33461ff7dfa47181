#include "common/address_guard.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/un.h>

namespace flowmesh {
namespace {

bool Ask(bool (*guard)(const sockaddr&), const std::string& text) {
  sockaddr_in four{.sin_family = AF_INET};
  if (::inet_pton(AF_INET, text.c_str(), &four.sin_addr) == 1) {
    return guard(reinterpret_cast<const sockaddr&>(four));
  }
  sockaddr_in6 six{.sin6_family = AF_INET6};
  EXPECT_EQ(::inet_pton(AF_INET6, text.c_str(), &six.sin6_addr), 1) << text;
  return guard(reinterpret_cast<const sockaddr&>(six));
}

bool IsPublic(const std::string& text) { return Ask(IsPublicAddress, text); }

TEST(AddressGuardTest, LinkLocalAddressesAlsoInsideIpv6) {
  for (const char* address :
       {"169.254.169.254", "169.254.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192",
        "fe80::1", "fd00:ec2::254", "fd20:ce::254", "::ffff:168.63.129.16",
        "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1"}) {
    EXPECT_TRUE(Ask(IsLinkLocal, address)) << address;
  }
  for (const char* address :
       {"127.0.0.1", "10.0.0.1", "169.253.0.1", "100.100.100.201", "168.63.129.17", "192.0.0.191",
        "1.1.1.1", "::1", "fd00::1", "fd20:ce::253", "64:ff9b::808:808", "2002:7f00:1::1"}) {
    EXPECT_FALSE(Ask(IsLinkLocal, address)) << address;
  }
}

TEST(AddressGuardTest, AddressesOfTheInternet) {
  for (const char* address :
       {"1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255",
        "168.63.129.17", "169.253.255.255", "172.15.255.255", "172.32.0.0", "192.167.255.255",
        "198.17.255.255", "198.20.0.0", "223.255.255.255", "2606:4700::1111",
        "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"}) {
    EXPECT_TRUE(IsPublic(address)) << address;
  }
}

TEST(AddressGuardTest, OtherAddresses) {
  for (const char* address : {"0.0.0.0",
                              "10.0.0.1",
                              "100.64.0.1",
                              "127.0.0.1",
                              "127.255.255.254",
                              "168.63.129.16",
                              "169.254.169.254",
                              "172.16.0.1",
                              "172.31.255.255",
                              "192.0.0.8",
                              "192.0.0.192",
                              "192.0.2.1",
                              "192.168.1.1",
                              "198.18.0.1",
                              "198.51.100.1",
                              "203.0.113.1",
                              "224.0.0.1",
                              "255.255.255.255",
                              "::",
                              "::1",
                              "fe80::1",
                              "fc00::1",
                              "fd00:ec2::254",
                              "fd20:ce::254",
                              "ff02::1",
                              "2001:db8::1",
                              "2001:0:1::1",
                              "::ffff:169.254.169.254",
                              "::ffff:127.0.0.1",
                              "::ffff:168.63.129.16",
                              "64:ff9b::a9fe:a9fe",
                              "2002:7f00:1::1",
                              "::7f00:1"}) {
    EXPECT_FALSE(IsPublic(address)) << address;
  }
  const sockaddr_un local{.sun_family = AF_UNIX};
  EXPECT_FALSE(IsPublicAddress(reinterpret_cast<const sockaddr&>(local)));
}

TEST(AddressGuardTest, HostsByName) {
  for (const char* url : {"https://example.org/x", "http://8.8.8.8", "http://[2606:4700::1]/"}) {
    EXPECT_TRUE(MayBePublicHost(url)) << url;
  }
  for (const char* url :
       {"http://localhost/", "http://LOCALHOST:80", "http://a.localhost", "http://127.0.0.1",
        "http://2130706433/", "http://0x7f.1/", "http://169.254.169.254/latest",
        "http://168.63.129.16/", "http://[::1]/", "http://metadata.google.internal/",
        "http://localhost./", "ftp://example.org", "x"}) {
    EXPECT_FALSE(MayBePublicHost(url)) << url;
  }
}

}  // namespace
}  // namespace flowmesh
