#include "serve/connection.h"

#include <netdb.h>
#include <sys/socket.h>

#include <charconv>
#include <filesystem>
#include <string>

namespace dspark {
namespace {

struct Address {
  std::string host;
  int port = -1;
};

Address Numeric(const sockaddr_storage& address, socklen_t length) {
  char host[NI_MAXHOST], port[NI_MAXSERV];
  if (getnameinfo(reinterpret_cast<const sockaddr*>(&address), length, host, sizeof(host), port, sizeof(port),
                  NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return {};
  }
  return {host, std::atoi(port)};
}

bool Joins(int socket, const httplib::Request& request) {
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  if (getpeername(socket, reinterpret_cast<sockaddr*>(&address), &length) != 0) return false;
  const Address peer = Numeric(address, length);
  if (peer.port != request.remote_port || peer.host != request.remote_addr) return false;
  length = sizeof(address);
  if (getsockname(socket, reinterpret_cast<sockaddr*>(&address), &length) != 0) return false;
  return Numeric(address, length).port == request.local_port;
}

}  // namespace

Connection::Connection(const httplib::Request& request) {
  std::error_code error;
  std::filesystem::directory_iterator entry("/proc/self/fd", error);
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    const std::string name = entry->path().filename();
    int socket = -1;
    std::from_chars(name.data(), name.data() + name.size(), socket);
    if (socket < 0 || !Joins(socket, request)) continue;
    socket_ = socket;
    return;
  }
}

bool Connection::Alive() const {
  if (socket_ < 0) return true;
  char byte;
  const ssize_t n = recv(socket_, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return n > 0 || (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR));
}

}  // namespace dspark
