//! Ranges of addresses, and the order in which they are tried.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::Deserialize;

/// A range as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawRange {
    pub(super) subnet: Option<IpNet>,
    range_start: Option<IpAddr>,
    range_end: Option<IpAddr>,
    gateway: Option<IpAddr>,
}

/// Ranges of one family, which one address is given out of.
#[derive(Debug)]
pub(super) struct RangeSet {
    /// Never empty.
    ranges: Vec<Range>,
}

/// A checked range; both ends belong to it.
#[derive(Clone, Debug)]
struct Range {
    subnet: IpNet,
    start: IpAddr,
    end: IpAddr,
    gateway: IpAddr,
}

/// An address that can be given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Free {
    /// With the prefix length of its subnet.
    pub(super) address: IpNet,
    pub(super) gateway: IpAddr,
}

impl RangeSet {
    pub(super) fn new(raw: &[RawRange]) -> Result<Self, String> {
        let ranges = raw.iter().map(Range::new).collect::<Result<Vec<_>, _>>()?;
        let Some(first) = ranges.first() else { return Err("empty range set".to_owned()) };
        for (index, range) in ranges.iter().enumerate() {
            if range.start.is_ipv4() != first.start.is_ipv4() {
                return Err("mixed address families".to_owned());
            }
            if let Some(other) = ranges[..index].iter().find(|other| other.overlaps(range)) {
                return Err(format!("subnets {range} and {other} overlap"));
            }
        }
        Ok(Self { ranges })
    }

    pub(super) fn is_ipv4(&self) -> bool {
        self.ranges[0].start.is_ipv4()
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(address))
    }

    pub(super) fn is_gateway(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(address) && range.gateway == address)
    }

    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.ranges.iter().any(|range| other.ranges.iter().any(|other| range.overlaps(other)))
    }

    pub(super) fn describe(&self, address: IpAddr) -> Option<Free> {
        self.ranges.iter().find(|range| range.contains(address))?.free(address)
    }

    /// Every address that can be given out, once: from the one after `last` to the end, then from the beginning. A
    /// container that restarts for ever so goes through the whole range before it sees an address again.
    pub(super) fn after(&self, last: Option<IpAddr>) -> impl Iterator<Item = Free> {
        let place = last.and_then(|last| {
            let index = self.ranges.iter().position(|range| range.contains(last))?;
            Some((index, number(last)))
        });
        let (index, first) = place.unwrap_or((0, number(self.ranges[0].start).wrapping_sub(1)));
        let of = move |range: &Range, from: u128, to: u128| {
            let range = range.clone();
            let v4 = range.start.is_ipv4();
            (from..=to).filter_map(move |number| range.free(address(number, v4)))
        };
        let whole = move |range: &Range| of(range, number(range.start), number(range.end));
        let current = &self.ranges[index];
        let later = self.ranges[index + 1..].iter().flat_map(whole);
        let earlier = self.ranges[..index].iter().flat_map(whole);
        let after = of(current, first.wrapping_add(1), number(current.end));
        let before = of(current, number(current.start), if place.is_some() { first } else { 0 });
        after.chain(later).chain(earlier).chain(before)
    }
}

impl Range {
    fn new(raw: &RawRange) -> Result<Self, String> {
        let subnet = raw.subnet.ok_or("a range has no subnet")?;
        if subnet.addr() != subnet.network() {
            let (subnet, network) = (subnet, subnet.trunc());
            return Err(format!(
                "network has host bits set: a subnet mask of length {} the network address is {network}, not {subnet}",
                subnet.prefix_len()
            ));
        }
        if subnet.prefix_len() > subnet.max_prefix_len() - 2 {
            return Err(format!("network {subnet} too small to allocate from"));
        }
        let first = number(subnet.network()) + 1;
        // The broadcast address of IPv4 is nobody's.
        let last = number(subnet.broadcast()) - u128::from(subnet.addr().is_ipv4());
        let v4 = subnet.addr().is_ipv4();
        let range = Self {
            subnet,
            start: raw.range_start.unwrap_or(address(first, v4)),
            end: raw.range_end.unwrap_or(address(last, v4)),
            gateway: raw.gateway.unwrap_or(address(first, v4)),
        };
        for (name, address) in [("rangeStart", range.start), ("rangeEnd", range.end), ("gateway", range.gateway)] {
            if !subnet.contains(&address) {
                return Err(format!("{name} {address} not in network {subnet}"));
            }
        }
        if range.start > range.end {
            return Err(format!("rangeStart {} is after rangeEnd {}", range.start, range.end));
        }
        Ok(range)
    }

    fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.start.is_ipv4() && (self.start..=self.end).contains(&address)
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.start) || self.contains(other.end) || other.contains(self.start) || other.contains(self.end)
    }

    fn free(&self, address: IpAddr) -> Option<Free> {
        if address == self.gateway {
            return None;
        }
        let address = IpNet::new(address, self.subnet.prefix_len()).ok()?;
        Some(Free { address, gateway: self.gateway })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<_> = self.ranges.iter().map(ToString::to_string).collect();
        f.write_str(&ranges.join(","))
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn address(number: u128, v4: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(number) if v4 => Ipv4Addr::from_bits(number).into(),
        _ => Ipv6Addr::from_bits(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &str) -> Result<RangeSet, String> {
        RangeSet::new(&serde_json::from_str::<Vec<_>>(ranges).expect("JSON"))
    }

    fn order(set: &RangeSet, last: Option<&str>) -> Vec<String> {
        let last = last.map(|last| last.parse().expect("address"));
        set.after(last).map(|free| free.address.to_string()).collect()
    }

    #[test]
    fn addresses_are_tried_round_robin_without_gateway_and_broadcast() {
        let set = set(r#"[{"subnet": "10.1.0.0/29"}]"#).expect("valid");
        assert_eq!(set.to_string(), "10.1.0.1-10.1.0.6");
        assert_eq!(order(&set, None), ["10.1.0.2/29", "10.1.0.3/29", "10.1.0.4/29", "10.1.0.5/29", "10.1.0.6/29"]);
        let wrapped = ["10.1.0.5/29", "10.1.0.6/29", "10.1.0.2/29", "10.1.0.3/29", "10.1.0.4/29"];
        assert_eq!(order(&set, Some("10.1.0.4")), wrapped);
        assert_eq!(order(&set, Some("10.9.0.4")).len(), 5, "an address of another range is no place to start");
    }

    #[test]
    fn several_ranges_follow_each_other() {
        let text = r#"[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.10", "rangeEnd": "10.1.0.11"},
            {"subnet": "10.2.0.0/24", "rangeEnd": "10.2.0.2", "gateway": "10.2.0.254"}]"#;
        let set = set(text).expect("valid");
        let all = ["10.1.0.10/24", "10.1.0.11/24", "10.2.0.1/24", "10.2.0.2/24"];
        assert_eq!(order(&set, None), all);
        assert_eq!(order(&set, Some("10.2.0.1")), ["10.2.0.2/24", "10.1.0.10/24", "10.1.0.11/24", "10.2.0.1/24"]);
        assert_eq!(order(&set, Some("10.1.0.10")), ["10.1.0.11/24", "10.2.0.1/24", "10.2.0.2/24", "10.1.0.10/24"]);
    }

    #[test]
    fn the_last_address_of_ipv6_is_given_out() {
        let set = set(r#"[{"subnet": "fd00::/126"}]"#).expect("valid");
        assert_eq!(order(&set, None), ["fd00::2/126", "fd00::3/126"]);
    }

    #[test]
    fn what_is_wrong_is_told() {
        let wrong = |text: &str| set(text).expect_err("refused");
        assert!(wrong(r#"[{"subnet": "10.1.0.0/31"}]"#).contains("too small"));
        assert!(wrong(r#"[{"subnet": "10.1.0.5/24"}]"#).contains("host bits"));
        assert!(
            wrong(r#"[{"subnet": "10.1.0.0/24", "rangeStart": "10.2.0.1"}]"#).contains("rangeStart 10.2.0.1 not in")
        );
        assert!(wrong(r#"[{"subnet": "10.1.0.0/24", "gateway": "10.2.0.1"}]"#).contains("gateway 10.2.0.1 not in"));
        let order = r#"[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.8"}]"#;
        assert!(wrong(order).contains("is after"));
        assert!(wrong(r#"[{"subnet": "10.1.0.0/24"}, {"subnet": "10.1.0.0/25"}]"#).contains("overlap"));
        assert!(wrong(r#"[{"subnet": "10.1.0.0/24"}, {"subnet": "fd00::/64"}]"#).contains("mixed"));
        assert!(wrong("[]").contains("empty"));
        assert!(wrong("[{}]").contains("no subnet"));
    }
}
