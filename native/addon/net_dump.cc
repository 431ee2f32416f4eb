// Listings by rtnetlink: links with their counters, addresses, routes, neighbours and forwarding entries.
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <net/if.h>
#include <sys/socket.h>

#include <functional>
#include <memory>

#include "net_internal.h"
#include "net_rtnl.h"
#include "net_thread.h"

namespace {

std::string Text(const struct rtattr* a) { return a ? static_cast<const char*>(RTA_DATA(a)) : ""; }
uint32_t Word(const struct rtattr* a) { return a ? *static_cast<const uint32_t*>(RTA_DATA(a)) : 0; }
std::string Address(const struct rtattr* a) {
  return a ? FormatAddress(static_cast<const uint8_t*>(RTA_DATA(a)), RTA_PAYLOAD(a)) : "";
}
std::string LinkName(unsigned index) {
  char name[IF_NAMESIZE];
  return index && if_indextoname(index, name) ? name : "";
}

struct Link {
  std::string name, alias, kind, mac, master;
  unsigned index, mtu;
  bool up;
  struct rtnl_link_stats64 stats;
};

Link ReadLink(const struct nlmsghdr* h) {
  auto* i = static_cast<const struct ifinfomsg*>(NLMSG_DATA(h));
  auto at = NlAttributes(IFLA_RTA(i), IFLA_PAYLOAD(h), IFLA_MAX);
  Link l = {};
  l.index = i->ifi_index;
  l.up = i->ifi_flags & IFF_UP;
  l.name = Text(at[IFLA_IFNAME]);
  l.alias = Text(at[IFLA_IFALIAS]);
  l.mtu = Word(at[IFLA_MTU]);
  l.master = LinkName(Word(at[IFLA_MASTER]));
  if (at[IFLA_ADDRESS] && RTA_PAYLOAD(at[IFLA_ADDRESS]) == 6)
    l.mac = FormatMac(static_cast<const uint8_t*>(RTA_DATA(at[IFLA_ADDRESS])));
  if (at[IFLA_LINKINFO]) {
    auto info = NlAttributes(RTA_DATA(at[IFLA_LINKINFO]), RTA_PAYLOAD(at[IFLA_LINKINFO]), IFLA_INFO_MAX);
    l.kind = Text(info[IFLA_INFO_KIND]);
  }
  if (at[IFLA_STATS64])
    memcpy(&l.stats, RTA_DATA(at[IFLA_STATS64]), std::min(sizeof l.stats, size_t(RTA_PAYLOAD(at[IFLA_STATS64]))));
  return l;
}

// A listing: `ask` is sent in the namespace, `read` makes entries of the answers of type `kind`, `show` makes objects of the entries.
template <class Entry, class Ask>
Napi::Value Listing(const Napi::CallbackInfo& info, int request, int kind, Ask ask,
                    std::function<void(const struct nlmsghdr*, std::vector<Entry>&)> read,
                    std::function<void(const Entry&, Napi::Object)> show) {
  std::string netns = StringOr(info[0]);
  auto list = std::make_shared<std::vector<Entry>>();
  return RunOnThread(
      info.Env(),
      [=] {
        EnterNetns(netns);
        NlSocket socket(NETLINK_ROUTE);
        NlMessage message(request, 0, &ask, sizeof ask);
        socket.dump(message, [&](const struct nlmsghdr* h) {
          if (h->nlmsg_type == kind) read(h, *list);
        });
      },
      [=](Napi::Env env) {
        Napi::Array out = Napi::Array::New(env, list->size());
        uint32_t n = 0;
        for (const Entry& e : *list) {
          Napi::Object o = Napi::Object::New(env);
          show(e, o);
          out.Set(n++, o);
        }
        return out;
      });
}

}  // namespace

// netLinks(netns) -> [{name, index, kind, mac, mtu, up, master, alias, rxBytes, ...}]
Napi::Value NetLinks(const Napi::CallbackInfo& info) {
  return Listing<Link>(
      info, RTM_GETLINK, RTM_NEWLINK, ifinfomsg{}, [](auto* h, auto& list) { list.push_back(ReadLink(h)); },
      [](const Link& l, Napi::Object o) {
        o.Set("name", l.name);
        o.Set("index", l.index);
        o.Set("kind", l.kind);
        o.Set("mac", l.mac);
        o.Set("mtu", l.mtu);
        o.Set("up", l.up);
        o.Set("master", l.master);
        o.Set("alias", l.alias);
        o.Set("rxBytes", double(l.stats.rx_bytes));
        o.Set("rxPackets", double(l.stats.rx_packets));
        o.Set("rxErrors", double(l.stats.rx_errors));
        o.Set("rxDropped", double(l.stats.rx_dropped));
        o.Set("txBytes", double(l.stats.tx_bytes));
        o.Set("txPackets", double(l.stats.tx_packets));
        o.Set("txErrors", double(l.stats.tx_errors));
        o.Set("txDropped", double(l.stats.tx_dropped));
      });
}

// netAddresses(netns) -> [{address, prefix, dev}]
Napi::Value NetAddresses(const Napi::CallbackInfo& info) {
  struct Entry {
    std::string address, dev;
    unsigned prefix;
  };
  return Listing<Entry>(
      info, RTM_GETADDR, RTM_NEWADDR, ifaddrmsg{},
      [](auto* h, auto& list) {
        auto* m = static_cast<const struct ifaddrmsg*>(NLMSG_DATA(h));
        auto at = NlAttributes(IFA_RTA(m), IFA_PAYLOAD(h), IFA_MAX);
        list.push_back({Address(at[IFA_LOCAL] ? at[IFA_LOCAL] : at[IFA_ADDRESS]), LinkName(m->ifa_index), m->ifa_prefixlen});
      },
      [](const Entry& e, Napi::Object o) {
        o.Set("address", e.address);
        o.Set("prefix", e.prefix);
        o.Set("dev", e.dev);
      });
}

// netRoutes(netns) -> IPv4 and IPv6 routes of all tables but "local": [{to, via, dev, table}]
Napi::Value NetRoutes(const Napi::CallbackInfo& info) {
  struct Entry {
    std::string to, via, dev;
    unsigned table;
  };
  return Listing<Entry>(
      info, RTM_GETROUTE, RTM_NEWROUTE, rtmsg{.rtm_family = AF_UNSPEC},
      [](auto* h, auto& list) {
        auto* m = static_cast<const struct rtmsg*>(NLMSG_DATA(h));
        auto at = NlAttributes(RTM_RTA(m), RTM_PAYLOAD(h), RTA_MAX);
        unsigned table = at[RTA_TABLE] ? Word(at[RTA_TABLE]) : m->rtm_table;
        if (table == RT_TABLE_LOCAL || m->rtm_type != RTN_UNICAST) return;
        std::string to = at[RTA_DST] ? Address(at[RTA_DST]) + "/" + std::to_string(m->rtm_dst_len)
                         : m->rtm_family == AF_INET6 ? "::/0" : "default";
        list.push_back({to, Address(at[RTA_GATEWAY]), LinkName(Word(at[RTA_OIF])), table});
      },
      [](const Entry& e, Napi::Object o) {
        o.Set("to", e.to);
        o.Set("via", e.via);
        o.Set("dev", e.dev);
        o.Set("table", e.table);
      });
}

// netNeighbours(netns, family) -> permanent entries: "ip": [{dev, address, mac}]; "bridge": [{dev, mac, address: VTEP or ""}]
Napi::Value NetNeighbours(const Napi::CallbackInfo& info) {
  struct Entry {
    std::string dev, address, mac;
  };
  bool bridge = StringOr(info[1]) == "bridge";
  return Listing<Entry>(
      info, RTM_GETNEIGH, RTM_NEWNEIGH, ndmsg{.ndm_family = static_cast<uint8_t>(bridge ? PF_BRIDGE : AF_INET)},
      [bridge](auto* h, auto& list) {
        auto* m = static_cast<const struct ndmsg*>(NLMSG_DATA(h));
        if (!(m->ndm_state & (bridge ? NUD_PERMANENT | NUD_NOARP : NUD_PERMANENT))) return;
        auto at = NlAttributes(reinterpret_cast<const char*>(m) + NLMSG_ALIGN(sizeof *m), NLMSG_PAYLOAD(h, sizeof *m), NDA_MAX);
        if (!at[NDA_LLADDR] || RTA_PAYLOAD(at[NDA_LLADDR]) != 6) return;
        list.push_back({LinkName(m->ndm_ifindex), Address(at[NDA_DST]), FormatMac(static_cast<const uint8_t*>(RTA_DATA(at[NDA_LLADDR])))});
      },
      [](const Entry& e, Napi::Object o) {
        o.Set("dev", e.dev);
        o.Set("address", e.address);
        o.Set("mac", e.mac);
      });
}
