// Deletes tracked connections that match a filter: a UDP sender would otherwise stay with a backend that is gone.
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <memory>

#include "net_internal.h"
#include "net_rtnl.h"
#include "net_thread.h"

namespace {

struct Tuple {
  std::string source, destination;
  unsigned protocol = 0, destinationPort = 0;
};

Tuple ReadTuple(const struct rtattr* a) {
  Tuple t;
  if (!a) return t;
  auto parts = NlAttributes(RTA_DATA(a), RTA_PAYLOAD(a), CTA_TUPLE_MAX);
  if (parts[CTA_TUPLE_IP]) {
    auto ip = NlAttributes(RTA_DATA(parts[CTA_TUPLE_IP]), RTA_PAYLOAD(parts[CTA_TUPLE_IP]), CTA_IP_MAX);
    auto text = [](const struct rtattr* x) {
      return x ? FormatAddress(static_cast<const uint8_t*>(RTA_DATA(x)), RTA_PAYLOAD(x)) : std::string();
    };
    t.source = text(ip[CTA_IP_V4_SRC] ? ip[CTA_IP_V4_SRC] : ip[CTA_IP_V6_SRC]);
    t.destination = text(ip[CTA_IP_V4_DST] ? ip[CTA_IP_V4_DST] : ip[CTA_IP_V6_DST]);
  }
  if (parts[CTA_TUPLE_PROTO]) {
    auto p = NlAttributes(RTA_DATA(parts[CTA_TUPLE_PROTO]), RTA_PAYLOAD(parts[CTA_TUPLE_PROTO]), CTA_PROTO_MAX);
    if (p[CTA_PROTO_NUM]) t.protocol = *static_cast<const uint8_t*>(RTA_DATA(p[CTA_PROTO_NUM]));
    if (p[CTA_PROTO_DST_PORT]) t.destinationPort = ntohs(*static_cast<const uint16_t*>(RTA_DATA(p[CTA_PROTO_DST_PORT])));
  }
  return t;
}

}  // namespace

// netConntrackDelete(netns, {protocol?, originalDestination?, originalDestinationPort?, replySources?: [addresses]})
// -> how many entries went. An empty filter matches nothing, so that a slip cannot cut every connection of the host.
Napi::Value NetConntrackDelete(const Napi::CallbackInfo& info) {
  std::string netns = StringOr(info[0]);
  Bag filter = Bag::From(info[1].As<Napi::Object>());
  auto count = std::make_shared<unsigned>(0);
  return RunOnThread(
      info.Env(),
      [netns, filter, count] {
        auto sources = filter.lists.find("replySources");
        bool anySource = sources == filter.lists.end();
        if (anySource && !filter.has("originalDestination") && !filter.has("originalDestinationPort")) return;
        std::string protocol = filter.str("protocol");
        unsigned number = protocol == "tcp" ? IPPROTO_TCP : protocol == "udp" ? IPPROTO_UDP : 0;
        EnterNetns(netns);
        NlSocket socket(NETLINK_NETFILTER);
        struct nfgenmsg g = {AF_UNSPEC, NFNETLINK_V0, 0};
        NlMessage request((NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_GET, 0, &g, sizeof g);
        std::vector<std::unique_ptr<NlMessage>> doomed;
        socket.dump(request, [&](const struct nlmsghdr* h) {
          auto* m = static_cast<const char*>(NLMSG_DATA(h));
          auto at = NlAttributes(m + NLMSG_ALIGN(sizeof g), NLMSG_PAYLOAD(h, sizeof g), CTA_MAX);
          Tuple original = ReadTuple(at[CTA_TUPLE_ORIG]), reply = ReadTuple(at[CTA_TUPLE_REPLY]);
          if (number && original.protocol != number) return;
          if (filter.has("originalDestination") && original.destination != filter.str("originalDestination")) return;
          if (filter.has("originalDestinationPort") &&
              original.destinationPort != unsigned(filter.num("originalDestinationPort")))
            return;
          if (!anySource && std::find(sources->second.begin(), sources->second.end(), reply.source) == sources->second.end())
            return;
          struct nfgenmsg family = {reinterpret_cast<const struct nfgenmsg*>(m)->nfgen_family, NFNETLINK_V0, 0};
          auto del = std::make_unique<NlMessage>((NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_DELETE, 0, &family, sizeof family);
          for (int type : {CTA_TUPLE_ORIG, CTA_ZONE, CTA_ID})
            if (at[type]) del->attr(at[type]->rta_type, RTA_DATA(at[type]), RTA_PAYLOAD(at[type]));
          doomed.push_back(std::move(del));
        });
        std::vector<NlMessage*> requests;
        for (auto& d : doomed) requests.push_back(d.get());
        *count = requests.size();
        NetError first = {0, "ctnetlink", netns, "delete", ""};
        socket.transact(requests, [&](size_t, int err, const char* text) {
          if (err == ENOENT || first.err) return;  // ENOENT: it ended by itself meanwhile
          first.err = err;
          first.detail = text;
        });
        if (first.err) throw first;
      },
      [count](Napi::Env env) { return Napi::Number::New(env, *count); });
}
