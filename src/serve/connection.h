// Whether the client of a request is still there.
#pragma once

#include <httplib.h>

namespace dspark {

// httplib hands its handlers no socket: this finds it by the addresses of its two ends. Valid while the
// request is being answered, for until then nobody closes the socket.
class Connection {
 public:
  explicit Connection(const httplib::Request& request);
  // False once the client has closed its side. One that is not found counts as there.
  bool Alive() const;

 private:
  int socket_ = -1;
};

}  // namespace dspark
