// Listings by rtnetlink: links with their counters, addresses, routes, neighbours and forwarding entries.
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <net/if.h>
#include <sys/socket.h>

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
  unsigned index, masterIndex, mtu;
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
  l.masterIndex = Word(at[IFLA_MASTER]);
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

}  // namespace

// netLinks(netns) -> [{name, index, kind, mac, mtu, up, master, alias, rxBytes, ...}]
Napi::Value NetLinks(const Napi::CallbackInfo& info) {
  std::string netns = StringOr(info[0]);
  auto links = std::make_shared<std::vector<Link>>();
  return RunOnThread(
      info.Env(),
      [netns, links] {
        EnterNetns(netns);
        NlSocket socket(NETLINK_ROUTE);
        struct ifinfomsg i = {};
        NlMessage request(RTM_GETLINK, 0, &i, sizeof i);
        socket.dump(request, [&](const struct nlmsghdr* h) {
          if (h->nlmsg_type == RTM_NEWLINK) links->push_back(ReadLink(h));
        });
        for (Link& l : *links)
          for (const Link& m : *links)
            if (l.masterIndex && m.index == l.masterIndex) l.master = m.name;
      },
      [links](Napi::Env env) {
        Napi::Array out = Napi::Array::New(env, links->size());
        uint32_t n = 0;
        for (const Link& l : *links) {
          Napi::Object o = Napi::Object::New(env);
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
          out.Set(n++, o);
        }
        return out;
      });
}

// netAddresses(netns) -> [{address, prefix, dev}]
Napi::Value NetAddresses(const Napi::CallbackInfo& info) {
  struct Entry {
    std::string address, dev;
    unsigned prefix;
  };
  std::string netns = StringOr(info[0]);
  auto list = std::make_shared<std::vector<Entry>>();
  return RunOnThread(
      info.Env(),
      [netns, list] {
        EnterNetns(netns);
        NlSocket socket(NETLINK_ROUTE);
        struct ifaddrmsg a = {};
        NlMessage request(RTM_GETADDR, 0, &a, sizeof a);
        socket.dump(request, [&](const struct nlmsghdr* h) {
          if (h->nlmsg_type != RTM_NEWADDR) return;
          auto* m = static_cast<const struct ifaddrmsg*>(NLMSG_DATA(h));
          auto at = NlAttributes(IFA_RTA(m), IFA_PAYLOAD(h), IFA_MAX);
          list->push_back({Address(at[IFA_LOCAL] ? at[IFA_LOCAL] : at[IFA_ADDRESS]), LinkName(m->ifa_index), m->ifa_prefixlen});
        });
      },
      [list](Napi::Env env) {
        Napi::Array out = Napi::Array::New(env, list->size());
        uint32_t n = 0;
        for (const Entry& e : *list) {
          Napi::Object o = Napi::Object::New(env);
          o.Set("address", e.address);
          o.Set("prefix", e.prefix);
          o.Set("dev", e.dev);
          out.Set(n++, o);
        }
        return out;
      });
}

// netRoutes(netns) -> IPv4 routes of all tables but "local": [{to, via, dev, table}]
Napi::Value NetRoutes(const Napi::CallbackInfo& info) {
  struct Entry {
    std::string to, via, dev;
    unsigned table;
  };
  std::string netns = StringOr(info[0]);
  auto list = std::make_shared<std::vector<Entry>>();
  return RunOnThread(
      info.Env(),
      [netns, list] {
        EnterNetns(netns);
        NlSocket socket(NETLINK_ROUTE);
        struct rtmsg r = {};
        r.rtm_family = AF_INET;
        NlMessage request(RTM_GETROUTE, 0, &r, sizeof r);
        socket.dump(request, [&](const struct nlmsghdr* h) {
          if (h->nlmsg_type != RTM_NEWROUTE) return;
          auto* m = static_cast<const struct rtmsg*>(NLMSG_DATA(h));
          auto at = NlAttributes(RTM_RTA(m), RTM_PAYLOAD(h), RTA_MAX);
          unsigned table = at[RTA_TABLE] ? Word(at[RTA_TABLE]) : m->rtm_table;
          if (table == RT_TABLE_LOCAL || m->rtm_type != RTN_UNICAST) return;
          std::string to = at[RTA_DST] ? Address(at[RTA_DST]) + "/" + std::to_string(m->rtm_dst_len) : "default";
          list->push_back({to, Address(at[RTA_GATEWAY]), LinkName(Word(at[RTA_OIF])), table});
        });
      },
      [list](Napi::Env env) {
        Napi::Array out = Napi::Array::New(env, list->size());
        uint32_t n = 0;
        for (const Entry& e : *list) {
          Napi::Object o = Napi::Object::New(env);
          o.Set("to", e.to);
          o.Set("via", e.via);
          o.Set("dev", e.dev);
          o.Set("table", e.table);
          out.Set(n++, o);
        }
        return out;
      });
}

// netNeighbours(netns, family) -> permanent entries: "ip": [{dev, address, mac}]; "bridge": [{dev, mac, address: VTEP or ""}]
Napi::Value NetNeighbours(const Napi::CallbackInfo& info) {
  struct Entry {
    std::string dev, address, mac;
  };
  std::string netns = StringOr(info[0]);
  bool bridge = StringOr(info[1]) == "bridge";
  auto list = std::make_shared<std::vector<Entry>>();
  return RunOnThread(
      info.Env(),
      [netns, bridge, list] {
        EnterNetns(netns);
        NlSocket socket(NETLINK_ROUTE);
        struct ndmsg q = {};
        q.ndm_family = bridge ? PF_BRIDGE : AF_INET;
        NlMessage request(RTM_GETNEIGH, 0, &q, sizeof q);
        socket.dump(request, [&](const struct nlmsghdr* h) {
          if (h->nlmsg_type != RTM_NEWNEIGH) return;
          auto* m = static_cast<const struct ndmsg*>(NLMSG_DATA(h));
          if (bridge ? !(m->ndm_state & (NUD_PERMANENT | NUD_NOARP)) : !(m->ndm_state & NUD_PERMANENT)) return;
          auto at = NlAttributes(reinterpret_cast<const char*>(m) + NLMSG_ALIGN(sizeof *m),
                                 NLMSG_PAYLOAD(h, sizeof *m), NDA_MAX);
          if (!at[NDA_LLADDR] || RTA_PAYLOAD(at[NDA_LLADDR]) != 6) return;
          list->push_back({LinkName(m->ndm_ifindex), Address(at[NDA_DST]),
                           FormatMac(static_cast<const uint8_t*>(RTA_DATA(at[NDA_LLADDR])))});
        });
      },
      [list](Napi::Env env) {
        Napi::Array out = Napi::Array::New(env, list->size());
        uint32_t n = 0;
        for (const Entry& e : *list) {
          Napi::Object o = Napi::Object::New(env);
          o.Set("dev", e.dev);
          o.Set("address", e.address);
          o.Set("mac", e.mac);
          out.Set(n++, o);
        }
        return out;
      });
}
