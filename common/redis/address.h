// Where a Redis server is, and how to log in (PROTOCOL.md section 11, REDIS_URL).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"

namespace flowmesh::redis {

struct Address {
  std::string host;
  int port = 6379;
  std::string unix_path;  // instead of host and port
  std::string user;
  std::string password;
  std::string password_file;  // instead of password: read anew for each connection
  int database = 0;
  bool tls = false;
  std::string tls_ca_file;           // whom to trust; empty: the system's certificates
  std::string tls_certificate_file;  // ours, with its chain; empty: none
  std::string tls_key_file;          // empty: the key is in the certificate's file

  // Not empty: host and port mean nothing, and one of these, asked in turn for `master`, tells
  // where the server is.
  std::vector<Address> sentinels;
  std::string master;

  std::string ToString() const;  // without the password
};

// InvalidArgument `expected ..., got ...`, without any password. Percent escapes are decoded.
//   redis://[user][:password@]host[:port][/db]     rediss:// for TLS
//   unix://[user:password@]/path
//   redis+sentinel://[user][:password@]host[:port],host[:port].../master[/db] rediss+sentinel://
// The last asks sentinels (port 26379) for the master of that name; user, password, database and
// TLS are those of the master, and TLS is the sentinels' too. Parameters behind a `?`, others are
// ignored:
//   db                                          wins over the path
//   ssl_ca_certs, ssl_certfile, ssl_keyfile     files in PEM, named as in redis-py
//   sentinel_username, sentinel_password        the sentinels' own login
absl::StatusOr<Address> ParseRedisUrl(std::string_view url);

// The password, read from password_file where that is set: its content without the line's end.
// Unavailable: the file cannot be read or is empty.
absl::StatusOr<std::string> PasswordOf(const Address& address);

}  // namespace flowmesh::redis
