#include "serve/connection.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <charconv>
#include <filesystem>
#include <string>

namespace dspark {
namespace {

struct Address {
  sockaddr_storage bytes{};
  socklen_t length = sizeof(bytes);

  sockaddr* get() { return reinterpret_cast<sockaddr*>(&bytes); }
  // IPv4 and IPv6 have it in the same place.
  int Port() const { return ntohs(reinterpret_cast<const sockaddr_in&>(bytes).sin_port); }
  std::string Host() {
    char host[NI_MAXHOST] = "";
    getnameinfo(get(), length, host, sizeof(host), nullptr, 0, NI_NUMERICHOST);
    return host;
  }
};

bool Joins(int socket, const httplib::Request& request) {
  Address peer, own;
  return getpeername(socket, peer.get(), &peer.length) == 0 && peer.Port() == request.remote_port &&
         getsockname(socket, own.get(), &own.length) == 0 && own.Port() == request.local_port &&
         peer.Host() == request.remote_addr;
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
