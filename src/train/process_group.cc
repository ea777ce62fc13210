#include "train/process_group.h"

#include "core/check.h"

#ifdef DSPARK_GLOO
#include <ATen/ops/from_blob.h>

#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#endif

namespace dspark {

#ifdef DSPARK_GLOO

namespace {

using std::chrono::milliseconds;
using StorePointer = c10::intrusive_ptr<c10d::Store>;

std::vector<uint8_t> Bytes(const std::string& text) { return {text.begin(), text.end()}; }

StorePointer OpenStore(const ProcessPlace& place, milliseconds patience) {
  c10d::TCPStoreOptions options;
  options.port = uint16_t(place.port);
  options.isServer = place.rank == 0 && !place.store_is_there;
  if (!place.store_is_there) options.numWorkers = size_t(place.world);
  options.waitWorkers = false;
  options.timeout = patience;
  StorePointer store = c10::make_intrusive<c10d::TCPStore>(place.host, options);
  return c10::make_intrusive<c10d::PrefixStore>("dspark/" + place.prefix, store);
}

auto OpenDevice(const ProcessPlace& place) {
  if (!place.interface.empty()) return c10d::ProcessGroupGloo::createDeviceForInterface(place.interface);
  const bool local = place.host == "127.0.0.1" || place.host == "localhost";
  return local ? c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1")
               : c10d::ProcessGroupGloo::createDefaultDevice();
}

std::string FirstLine(const std::string& text) { return text.substr(0, text.find('\n')); }

at::Tensor Wrap(std::span<double> numbers) {
  return at::from_blob(numbers.data(), {int64_t(numbers.size())}, at::kDouble);
}

}  // namespace

struct ProcessGroup::Links {
  StorePointer store;
  c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo;
  Patience patience;
  int rank, world;

  std::string Key(const char* what, int of) const { return fmt::format("{}/{}", what, of); }
  bool Has(const char* what, int of) const { return store->check({Key(what, of)}); }
  void Say(const char* what, const std::string& text = "yes") const {
    store->set(Key(what, rank), Bytes(text));
  }

  // Waits until every other process fulfils `condition`, as long as an inquiry may take.
  template <class Condition>
  void WaitForOthers(const Condition& condition) const {
    const auto end = std::chrono::steady_clock::now() + patience.inquiry;
    for (int other = 0; other < world; ++other) {
      while (other != rank && !condition(other) && std::chrono::steady_clock::now() < end)
        std::this_thread::sleep_for(milliseconds(20));
    }
  }

  // The store dies with the first process: it stays until the others have read what is written there, or
  // those of them who have `asked`.
  void LetOthersRead(bool asked) const {
    if (rank != 0) return;
    WaitForOthers([&](int other) {
      return Has("read", other) || Has("ended", other) || (asked && !Has("asks", other));
    });
  }

  // Which processes are gone, as a line; `what` is what the failed call said.
  std::string Inquire(const std::string& what) const {
    Say("asks");
    WaitForOthers([&](int other) { return Has("asks", other) || Has("ended", other); });
    std::string gone;
    for (int other = 0; other < world; ++other) {
      if (other == rank || Has("asks", other)) continue;
      if (!gone.empty()) gone += "; ";
      if (Has("ended", other)) {
        const std::vector<uint8_t> why = store->get(Key("ended", other));
        gone += fmt::format("rank {} ended: {}", other, std::string(why.begin(), why.end()));
      } else {
        gone += fmt::format("rank {} is gone without a word (killed, or its machine is)", other);
      }
    }
    Say("read");
    LetOthersRead(true);
    return gone.empty() ? "the processes lost each other: " + FirstLine(what) : gone;
  }
};

bool ProcessGroup::Available() { return true; }

Result<ProcessGroup> ProcessGroup::Join(const ProcessPlace& place, const Patience& patience) {
  ProcessGroup group;
  if (place.world == 1) return group;
  try {
    StorePointer store = OpenStore(place, patience.join);
    auto options = c10d::ProcessGroupGloo::Options::create(patience.join);
    options->devices.push_back(OpenDevice(place));
    auto gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(store, place.rank, place.world, options);
    // Connections were made in the joining's time; calls have their own.
    store->setTimeout(patience.inquiry);
    group.rank_ = place.rank;
    group.world_ = place.world;
    group.links_ = std::make_unique<Links>(Links{store, gloo, patience, place.rank, place.world});
  } catch (const std::exception& error) {
    return MakeError(
        "rank {} of {} did not meet the others at {}:{} within {} s ({}); start all of them, and see that "
        "the port is free and can be reached",
        place.rank, place.world, place.host, place.port, patience.join.count() / 1000,
        FirstLine(error.what()));
  }
  // Those that still connect need those that have: nobody goes on, or ends, before all are there.
  double here = 1;
  DSPARK_RETURN_IF_ERROR(group.Sum({&here, 1}));
  return group;
}

template <class Exchange>
Status ProcessGroup::Together(const Exchange& exchange) {
  if (world_ == 1) return {};
  DSPARK_CHECK(links_ != nullptr);
  std::string what;
  try {
    exchange();
    return {};
  } catch (const std::exception& error) {
    what = error.what();
  }
  links_->gloo.reset();  // breaks the connections, so that the others notice too
  std::string gone = "rank 0 is gone, and with it what the others wrote down";
  try {
    gone = links_->Inquire(what);
  } catch (const std::exception&) {  // the store is rank 0's
  }
  links_.reset();
  return MakeError("{}; start all processes again: the run goes on from the last checkpoint", gone);
}

Status ProcessGroup::Sum(const std::vector<at::Tensor>& tensors) {
  return Together([&] {
    c10d::AllreduceOptions options;
    options.timeout = links_->patience.exchange;
    std::vector<c10::intrusive_ptr<c10d::Work>> running;
    for (const at::Tensor& tensor : tensors) {
      std::vector<at::Tensor> one = {tensor};
      running.push_back(links_->gloo->allreduce(one, options));
    }
    for (const auto& work : running) work->wait();
  });
}

Status ProcessGroup::Sum(std::span<double> numbers) { return Sum({Wrap(numbers)}); }

Status ProcessGroup::TakeFirsts(const std::vector<at::Tensor>& tensors) {
  return Together([&] {
    c10d::BroadcastOptions options;
    options.timeout = links_->patience.exchange;
    for (const at::Tensor& tensor : tensors) {
      std::vector<at::Tensor> one = {tensor};
      links_->gloo->broadcast(one, options)->wait();
    }
  });
}

Status ProcessGroup::TakeFirsts(std::span<double> numbers) { return TakeFirsts({Wrap(numbers)}); }

Result<std::string> ProcessGroup::FirstsText(const std::string& name, const std::string& text) {
  std::string firsts = text;
  DSPARK_RETURN_IF_ERROR(Together([&] {
    if (first()) return links_->store->set("text/" + name, Bytes(text));
    links_->store->wait({"text/" + name}, links_->patience.exchange);
    const std::vector<uint8_t> bytes = links_->store->get("text/" + name);
    firsts.assign(bytes.begin(), bytes.end());
  }));
  return firsts;
}

void ProcessGroup::Leave(const std::string& why) {
  if (!links_) return;
  try {
    links_->Say("ended", why);
    links_->gloo.reset();
    links_->LetOthersRead(false);
  } catch (const std::exception&) {  // nobody is left to read it
  }
  links_.reset();
}

#else

struct ProcessGroup::Links {};

bool ProcessGroup::Available() { return false; }
Result<ProcessGroup> ProcessGroup::Join(const ProcessPlace& place, const Patience&) {
  if (place.world == 1) return ProcessGroup();
  return MakeError(
      "this build trains in one process only; install gloo's headers (libgloo-dev) and build again");
}
Status ProcessGroup::Sum(const std::vector<at::Tensor>&) { return {}; }
Status ProcessGroup::Sum(std::span<double>) { return {}; }
Status ProcessGroup::TakeFirsts(const std::vector<at::Tensor>&) { return {}; }
Status ProcessGroup::TakeFirsts(std::span<double>) { return {}; }
Result<std::string> ProcessGroup::FirstsText(const std::string&, const std::string& text) { return text; }
void ProcessGroup::Leave(const std::string&) {}

#endif

ProcessGroup::ProcessGroup() = default;
ProcessGroup::ProcessGroup(ProcessGroup&&) noexcept = default;
ProcessGroup& ProcessGroup::operator=(ProcessGroup&&) noexcept = default;
ProcessGroup::~ProcessGroup() = default;

}  // namespace dspark
