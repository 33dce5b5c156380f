//! Answers of upstreams, kept as long as their TTLs allow.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RData;
use portolan_netcore::model::SandboxId;

/// Most answers kept; beyond it the expired go, and if that is not enough, half of the rest.
const MAX_ANSWERS: usize = 10_000;
/// The same in bytes on the wire: who asks for long answers must not fill the memory of a process that all share.
const MAX_BYTES: usize = 4 << 20;
/// No longer answer is kept.
const MAX_ANSWER_BYTES: usize = 4096;
/// No answer is believed longer than this.
const MAX_TTL_SECONDS: u32 = 3600;
/// A name that does not exist is believed not to exist at most this long (RFC 2308 5).
const MAX_NEGATIVE_TTL_SECONDS: u32 = 60;

/// What was asked of whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) query_type: u16,
    pub(crate) class: u16,
    pub(crate) dnssec_ok: bool,
    pub(crate) checking_disabled: bool,
    pub(crate) recursion_desired: bool,
    pub(crate) servers: Vec<SocketAddr>,
    /// Whose namespace the servers are asked from; none: the host's. What a container hears in its own
    /// namespace, where it may well answer itself, is nobody else's answer.
    pub(crate) inside: Option<SandboxId>,
}

#[derive(Debug)]
struct Kept {
    answer: Arc<Message>,
    since: Instant,
    until: Instant,
    bytes: usize,
}

/// The cache. The clock is an argument.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    kept: HashMap<Key, Kept>,
    bytes: usize,
}

impl Cache {
    /// An answer that is still good, and its age in seconds.
    pub(crate) fn get(&self, key: &Key, now: Instant) -> Option<(Arc<Message>, u32)> {
        let kept = self.kept.get(key).filter(|kept| now < kept.until)?;
        let age = u32::try_from(now.duration_since(kept.since).as_secs()).unwrap_or(u32::MAX);
        Some((kept.answer.clone(), age))
    }

    /// Keeps an answer if it may be kept.
    pub(crate) fn put(&mut self, key: Key, answer: Arc<Message>, now: Instant) {
        let Some(ttl) = ttl_seconds(&answer).filter(|ttl| *ttl > 0) else { return };
        let bytes = answer.to_vec().map_or(usize::MAX, |wire| wire.len());
        if bytes > MAX_ANSWER_BYTES {
            return;
        }
        self.make_room(now);
        let until = now + Duration::from_secs(u64::from(ttl));
        self.bytes += bytes;
        if let Some(old) = self.kept.insert(key, Kept { answer, since: now, until, bytes }) {
            self.bytes -= old.bytes;
        }
    }

    fn make_room(&mut self, now: Instant) {
        let is_full =
            |cache: &Self| cache.kept.len() >= MAX_ANSWERS || cache.bytes > MAX_BYTES - MAX_ANSWER_BYTES;
        if !is_full(self) {
            return;
        }
        self.kept.retain(|_, kept| now < kept.until);
        self.bytes = self.kept.values().map(|kept| kept.bytes).sum();
        if is_full(self) {
            let mut ends: Vec<Instant> = self.kept.values().map(|kept| kept.until).collect();
            let half = ends.len() / 2;
            let median = *ends.select_nth_unstable(half).1;
            // Many may end at the same time: no more than half of those stay.
            let mut stay = half;
            self.kept.retain(|_, kept| {
                let stays = kept.until >= median && stay > 0;
                stay -= usize::from(stays);
                stays
            });
            self.bytes = self.kept.values().map(|kept| kept.bytes).sum();
        }
    }
}

/// The shortest TTL of a positive answer; of a negative one, the SOA's (RFC 2308 5), none without it.
fn ttl_seconds(answer: &Message) -> Option<u32> {
    if answer.metadata.truncation {
        return None;
    }
    match answer.metadata.response_code {
        ResponseCode::NoError if !answer.answers.is_empty() => {
            answer.answers.iter().map(|record| record.ttl).min().map(|ttl| ttl.min(MAX_TTL_SECONDS))
        }
        ResponseCode::NoError | ResponseCode::NXDomain => answer.authorities.iter().find_map(|record| {
            let RData::SOA(soa) = &record.data else { return None };
            Some(record.ttl.min(soa.minimum).min(MAX_NEGATIVE_TTL_SECONDS))
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::OpCode;
    use hickory_proto::rr::rdata::{A, SOA};
    use hickory_proto::rr::{Name, Record};

    use super::*;

    fn key(name: &str) -> Key {
        Key {
            name: name.into(),
            query_type: 1,
            class: 1,
            dnssec_ok: false,
            checking_disabled: false,
            recursion_desired: true,
            servers: vec![],
            inside: None,
        }
    }

    fn answer(ttl: u32) -> Arc<Message> {
        let mut message = Message::response(1, OpCode::Query);
        let name = Name::from_ascii("example.org.").unwrap();
        message.add_answer(Record::from_rdata(name, ttl, RData::A(A([192, 0, 2, 1].into()))));
        Arc::new(message)
    }

    #[test]
    fn an_answer_lives_as_long_as_its_ttl() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        cache.put(key("a"), answer(30), now);
        assert_eq!(cache.get(&key("a"), now + Duration::from_secs(29)).map(|(_, age)| age), Some(29));
        assert!(cache.get(&key("a"), now + Duration::from_secs(30)).is_none());
        assert!(cache.get(&key("b"), now).is_none());
        cache.put(key("z"), answer(0), now);
        assert!(cache.get(&key("z"), now).is_none());
    }

    #[test]
    fn a_negative_answer_needs_a_soa_and_failures_are_not_kept() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let mut missing = Message::response(1, OpCode::Query);
        missing.metadata.response_code = ResponseCode::NXDomain;
        cache.put(key("a"), Arc::new(missing.clone()), now);
        assert!(cache.get(&key("a"), now).is_none());
        let root = Name::root();
        let soa = SOA::new(root.clone(), root.clone(), 1, 1, 1, 1, 900);
        missing.add_authority(Record::from_rdata(root, 900, RData::SOA(soa)));
        cache.put(key("a"), Arc::new(missing.clone()), now);
        assert!(cache.get(&key("a"), now + Duration::from_secs(59)).is_some());
        assert!(cache.get(&key("a"), now + Duration::from_secs(61)).is_none());
        missing.metadata.response_code = ResponseCode::ServFail;
        cache.put(key("b"), Arc::new(missing), now);
        assert!(cache.get(&key("b"), now).is_none());
    }

    #[test]
    fn a_full_cache_makes_room() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        for n in 0..=MAX_ANSWERS {
            cache.put(key(&n.to_string()), answer(60), now);
        }
        assert!(cache.kept.len() <= MAX_ANSWERS && cache.get(&key(&MAX_ANSWERS.to_string()), now).is_some());
        assert!(cache.kept.len() >= MAX_ANSWERS / 2, "half stays");
    }

    #[test]
    fn long_answers_do_not_fill_the_memory() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let with = |records: usize| {
            let mut message = Message::clone(&answer(60));
            let record = message.answers[0].clone();
            message.answers = vec![record; records];
            Arc::new(message)
        };
        cache.put(key("long"), with(1000), now);
        assert!(cache.get(&key("long"), now).is_none());
        for n in 0..3000 {
            cache.put(key(&n.to_string()), with(100), now);
            cache.put(key(&n.to_string()), with(100), now);
        }
        assert!(cache.get(&key("2999"), now).is_some() && cache.bytes <= MAX_BYTES);
        assert_eq!(cache.bytes, cache.kept.values().map(|kept| kept.bytes).sum::<usize>());
    }
}
