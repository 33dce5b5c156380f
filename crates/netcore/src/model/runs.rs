//! How lists of ports are stored: a run of consecutive ones is one entry with its length. Ten thousand
//! ports that were asked for as one range take a line, and one port more costs the store as much as the
//! first. Lists without runs are as serde writes them, and as they were before there were runs.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How far back the run may be that an entry goes on: two addresses may take turns.
const BACK: usize = 2;

/// Something with a port in it.
pub trait Run: Sized {
    /// The same with all its ports this much higher; none if it cannot be in a run, or not so far up.
    fn higher(&self, by: u16) -> Option<Self>;
}

#[derive(Serialize, Deserialize)]
struct Stored<T> {
    #[serde(flatten)]
    first: T,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    count: u16,
}

fn one() -> u16 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_one(count: &u16) -> bool {
    *count == 1
}

/// For `#[serde(with)]`.
///
/// # Errors
/// The serializer's.
pub fn serialize<T, S>(list: &[T], serializer: S) -> Result<S::Ok, S::Error>
where
    T: Run + Clone + PartialEq + Serialize,
    S: Serializer,
{
    let mut runs: Vec<Stored<T>> = Vec::new();
    for item in list {
        let goes_on = |run: &&mut Stored<T>| {
            run.count < u16::MAX && run.first.higher(run.count).is_some_and(|next| next == *item)
        };
        match runs.iter_mut().rev().take(BACK).find(goes_on) {
            Some(run) => run.count += 1,
            None => runs.push(Stored { first: item.clone(), count: 1 }),
        }
    }
    runs.serialize(serializer)
}

/// For `#[serde(with)]`. Entries that took turns come one run after the other.
///
/// # Errors
/// The deserializer's, or a run that leaves the range of ports.
pub fn deserialize<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Run + Deserialize<'de>,
    D: Deserializer<'de>,
{
    let mut list = Vec::new();
    for Stored { first, count } in Vec::<Stored<T>>::deserialize(deserializer)? {
        let rest: Option<Vec<T>> = (1..count).map(|by| first.higher(by)).collect();
        list.push(first);
        list.extend(rest.ok_or_else(|| serde::de::Error::custom("a run of ports beyond the last"))?);
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use serde::de::value::{Error, SeqDeserializer};

    use super::super::{PortBinding, Proto};
    use super::*;

    fn binding(host_ip: &str, container_port: u16, host_port: u16) -> PortBinding {
        let host_ip: IpAddr = host_ip.parse().unwrap();
        PortBinding { proto: Proto::Tcp, container_port, host_ip, host_port }
    }

    #[test]
    fn a_run_ends_before_it_leaves_the_ports() {
        assert_eq!(binding("::", 65_535, 1).higher(1), None);
        assert_eq!(binding("::", 1, 65_534).higher(1), Some(binding("::", 2, 65_535)));
        let empty: SeqDeserializer<_, Error> = SeqDeserializer::new(std::iter::empty::<u8>());
        assert_eq!(deserialize::<PortBinding, _>(empty).unwrap(), []);
    }
}
