//! Questions off the wire, answers onto it (RFC 1035, EDNS: RFC 6891).

use std::net::{IpAddr, SocketAddr};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use portolan_netcore::dns::{Question, QuestionType, RecordData, TTL_SECONDS};
use portolan_netcore::model::SandboxId;

use crate::cache::Key;

/// What a client without EDNS can take over UDP (RFC 1035 4.2.1).
const PLAIN_UDP_BYTES: u16 = 512;
/// What we say we can take: fits every path without fragments (DNS flag day 2020).
const OUR_UDP_BYTES: u16 = 1232;

/// How an answer travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// One client's question.
#[derive(Debug)]
pub(crate) struct Asked {
    message: Message,
    query: Query,
    name: String,
}

/// Why a packet is not a question; the bytes to send back, if it deserves any.
pub(crate) type Rejected = Option<Vec<u8>>;

impl Asked {
    /// Reads a packet. Responses and rubbish without a header get no answer at all.
    pub(crate) fn parse(packet: &[u8]) -> Result<Self, Rejected> {
        if packet.len() < 12 || packet[2] & 0x80 != 0 {
            return Err(None);
        }
        let id = u16::from_be_bytes([packet[0], packet[1]]);
        let error = |op_code, code| Some(Message::error_msg(id, op_code, code).to_vec().unwrap_or_default());
        let message = Message::from_vec(packet).map_err(|_| error(OpCode::Query, ResponseCode::FormErr))?;
        if message.metadata.op_code != OpCode::Query {
            return Err(error(message.metadata.op_code, ResponseCode::NotImp));
        }
        let [query] = message.queries.as_slice() else {
            return Err(error(OpCode::Query, ResponseCode::FormErr));
        };
        let query = query.clone();
        let name = query.name.to_ascii();
        let name = name.strip_suffix('.').unwrap_or(&name).to_owned();
        Ok(Self { message, query, name })
    }

    /// The question as the core asks it. Classes other than IN have no containers in them.
    pub(crate) fn question(&self) -> Question<'_> {
        let kind = match (self.query.query_class, self.query.query_type) {
            (DNSClass::IN, RecordType::A) => QuestionType::A,
            (DNSClass::IN, RecordType::AAAA) => QuestionType::Aaaa,
            (DNSClass::IN, RecordType::PTR) => QuestionType::Ptr,
            (DNSClass::IN, RecordType::SRV) => QuestionType::Srv,
            _ => QuestionType::Other,
        };
        Question { name: &self.name, kind }
    }

    /// What makes two questions the same to the same servers.
    pub(crate) fn key(&self, servers: Vec<SocketAddr>, inside: Option<SandboxId>) -> Key {
        Key {
            name: self.name.to_ascii_lowercase(),
            query_type: u16::from(self.query.query_type),
            class: u16::from(self.query.query_class),
            dnssec_ok: self.dnssec_ok(),
            checking_disabled: self.message.metadata.checking_disabled,
            recursion_desired: self.message.metadata.recursion_desired,
            servers,
            inside,
        }
    }

    fn dnssec_ok(&self) -> bool {
        self.message.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok)
    }

    /// The question for an upstream, with an id of our own.
    pub(crate) fn forwarded(&self, id: u16) -> Option<Outgoing> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = self.message.metadata.recursion_desired;
        message.metadata.checking_disabled = self.message.metadata.checking_disabled;
        message.add_query(self.query.clone());
        let plain = message.to_vec().ok()?;
        let mut edns = Edns::new();
        edns.set_max_payload(OUR_UDP_BYTES);
        edns.set_dnssec_ok(self.dnssec_ok());
        message.set_edns(edns);
        Some(Outgoing { id, query: self.query.clone(), extended: message.to_vec().ok()?, plain })
    }

    /// An answer with these records; NODATA if there are none.
    pub(crate) fn known(&self, records: Vec<RecordData>, transport: Transport) -> Vec<u8> {
        let mut response = self.response(ResponseCode::NoError);
        response.metadata.authoritative = true;
        let owner = &self.query.name;
        for data in records {
            let data = match data {
                RecordData::A(ip) => RData::A(A(ip)),
                RecordData::Aaaa(ip) => RData::AAAA(AAAA(ip)),
                RecordData::Ptr(name) => match absolute(&name) {
                    Some(name) => RData::PTR(PTR(name)),
                    None => continue,
                },
                RecordData::Srv { port, target, addresses } => {
                    let Some(target) = absolute(&target) else { continue };
                    for address in addresses {
                        let data = match address {
                            IpAddr::V4(ip) => RData::A(A(ip)),
                            IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
                        };
                        response.add_additional(Record::from_rdata(target.clone(), TTL_SECONDS, data));
                    }
                    RData::SRV(SRV::new(0, 0, port, target))
                }
            };
            response.add_answer(Record::from_rdata(owner.clone(), TTL_SECONDS, data));
        }
        self.encode(response, transport)
    }

    /// An answer that is only a code.
    pub(crate) fn code(&self, code: ResponseCode, transport: Transport) -> Vec<u8> {
        self.encode(self.response(code), transport)
    }

    /// An upstream's answer for this client: our client's id, name and EDNS, TTLs less `age_seconds`.
    pub(crate) fn relayed(&self, upstream: &Message, age_seconds: u32, transport: Transport) -> Vec<u8> {
        let mut response = upstream.clone();
        response.metadata.id = self.message.metadata.id;
        response.metadata.recursion_available = true;
        response.queries = vec![self.query.clone()];
        let ours = self.response(upstream.metadata.response_code);
        response.edns = ours.edns;
        for record in
            response.answers.iter_mut().chain(&mut response.authorities).chain(&mut response.additionals)
        {
            record.decrement_ttl(age_seconds);
        }
        self.encode(response, transport)
    }

    fn response(&self, code: ResponseCode) -> Message {
        let mut response = Message::response(self.message.metadata.id, OpCode::Query);
        response.metadata.recursion_desired = self.message.metadata.recursion_desired;
        response.metadata.recursion_available = true;
        response.metadata.response_code = code;
        response.add_query(self.query.clone());
        if let Some(theirs) = &self.message.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(OUR_UDP_BYTES);
            edns.set_dnssec_ok(theirs.flags().dnssec_ok);
            response.set_edns(edns);
        }
        response
    }

    /// Over UDP, an answer longer than the client takes goes without what it was not asked for; if that
    /// is not enough, with as many records as fit and TC set. The client asks again over TCP; one that has
    /// none (musl before 1.2.4) finds something in it all the same.
    fn encode(&self, mut response: Message, transport: Transport) -> Vec<u8> {
        let bytes = response.to_vec().unwrap_or_default();
        let limit =
            self.message.edns.as_ref().map_or(PLAIN_UDP_BYTES, |e| e.max_payload().max(PLAIN_UDP_BYTES));
        let fits = |bytes: &[u8]| bytes.len() <= usize::from(limit);
        if transport == Transport::Tcp || fits(&bytes) {
            return bytes;
        }
        response.additionals.clear();
        let bytes = response.to_vec().unwrap_or_default();
        if fits(&bytes) {
            return bytes;
        }
        let answers = std::mem::take(&mut response.answers);
        let mut cut = response.truncate();
        // No record is shorter than this: owner as a pointer, type, class, TTL, length (RFC 1035 4.1.3).
        let most = answers.len().min(usize::from(limit) / 12);
        (0..=most)
            .rev()
            .find_map(|count| {
                cut.answers = answers[..count].to_vec();
                cut.to_vec().ok().filter(|bytes| fits(bytes))
            })
            .unwrap_or_default()
    }
}

/// A question as it goes to an upstream.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    id: u16,
    query: Query,
    /// With EDNS (RFC 6891).
    pub(crate) extended: Vec<u8>,
    /// For upstreams, and what stands before them, that do not know it (6.2.2 there).
    pub(crate) plain: Vec<u8>,
}

impl Outgoing {
    /// Is it the answer? Guards against off-path forgeries (RFC 5452 9.1). An error may come without the
    /// question: it settles nothing, so that a forger gains nothing by it.
    pub(crate) fn is_answered_by(&self, answer: &Message) -> bool {
        let said = match answer.queries.as_slice() {
            [said] => said.name.eq_ignore_root(&self.query.name) && said.query_type == self.query.query_type,
            [] => !settles(answer),
            _ => false,
        };
        said && answer.metadata.message_type == MessageType::Response && answer.metadata.id == self.id
    }
}

/// SERVFAIL, REFUSED and the like say something about the upstream, not about the name.
pub(crate) fn settles(message: &Message) -> bool {
    !matches!(
        message.metadata.response_code,
        ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::NotImp | ResponseCode::FormErr
    )
}

/// A container's name may have labels that no host name may have; on the wire all bytes are fine. None
/// if it is too long for a name.
fn absolute(name: &str) -> Option<Name> {
    let mut name = Name::from_labels(name.split('.').map(str::as_bytes)).ok()?;
    name.set_fqdn(true);
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(name: &str, edns_bytes: Option<u16>) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        if let Some(bytes) = edns_bytes {
            let mut edns = Edns::new();
            edns.set_max_payload(bytes);
            message.set_edns(edns);
        }
        message.to_vec().unwrap()
    }

    fn many() -> Vec<RecordData> {
        (0..60).map(|n| RecordData::A([172, 18, 0, n].into())).collect()
    }

    #[test]
    fn the_answer_repeats_id_and_name_as_asked() {
        let asked = Asked::parse(&packet("WeB.", None)).unwrap();
        assert_eq!(asked.question(), Question { name: "WeB", kind: QuestionType::A });
        let bytes = asked.known(vec![RecordData::A([172, 18, 0, 2].into())], Transport::Udp);
        let answer = Message::from_vec(&bytes).unwrap();
        assert_eq!((answer.metadata.id, answer.metadata.recursion_available), (7, true));
        assert_eq!(answer.queries[0].name.to_ascii(), "WeB.");
        assert_eq!((answer.answers.len(), answer.answers[0].ttl), (1, TTL_SECONDS));
        assert!(answer.edns.is_none(), "no EDNS to a client without it");
    }

    #[test]
    fn long_answers_are_cut_over_udp_unless_the_client_takes_them() {
        let plain = Asked::parse(&packet("svc.", None)).unwrap();
        let cut = plain.known(many(), Transport::Udp);
        assert!(cut.len() <= 512 && Message::from_vec(&cut).unwrap().metadata.truncation);
        assert_eq!(Message::from_vec(&plain.known(many(), Transport::Tcp)).unwrap().answers.len(), 60);
        let edns = Asked::parse(&packet("svc.", Some(4096))).unwrap();
        assert_eq!(Message::from_vec(&edns.known(many(), Transport::Udp)).unwrap().answers.len(), 60);
    }

    #[test]
    fn rubbish_gets_what_it_deserves() {
        assert!(Asked::parse(b"short").unwrap_err().is_none());
        let mut response = packet("a.", None);
        response[2] |= 0x80;
        assert!(Asked::parse(&response).unwrap_err().is_none(), "a response is never answered");
        let mut cut = packet("abc.", None);
        cut.truncate(14);
        let answer = Message::from_vec(&Asked::parse(&cut).unwrap_err().unwrap()).unwrap();
        assert_eq!((answer.metadata.id, answer.metadata.response_code), (7, ResponseCode::FormErr));
        let mut update = packet("a.", None);
        update[2] |= 5 << 3;
        let answer = Message::from_vec(&Asked::parse(&update).unwrap_err().unwrap()).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::NotImp);
    }

    #[test]
    fn an_upstream_answer_is_aged_and_given_the_client_s_id() {
        let asked = Asked::parse(&packet("example.org.", None)).unwrap();
        let sent = asked.forwarded(99).unwrap();
        let mut upstream = Message::response(99, OpCode::Query);
        upstream.add_query(asked.query.clone());
        upstream.add_answer(Record::from_rdata(
            asked.query.name.clone(),
            60,
            RData::A(A([192, 0, 2, 1].into())),
        ));
        assert!(sent.is_answered_by(&upstream));
        let relayed = Message::from_vec(&asked.relayed(&upstream, 20, Transport::Udp)).unwrap();
        assert_eq!((relayed.metadata.id, relayed.answers[0].ttl), (7, 40));
        let mut header = Message::error_msg(99, OpCode::Query, ResponseCode::ServFail);
        assert!(sent.is_answered_by(&header), "an error needs no question");
        header.metadata.response_code = ResponseCode::NXDomain;
        assert!(!sent.is_answered_by(&header), "unless it settles something");
        upstream.metadata.id = 98;
        assert!(!sent.is_answered_by(&upstream));
    }

    #[test]
    fn a_service_comes_with_its_addresses_unless_they_do_not_fit() {
        let asked = Asked::parse(&packet("_80._tcp.svc.", None)).unwrap();
        let srv = |count: u8| {
            (0..count).map(|n| RecordData::Srv {
                port: 80,
                target: format!("web{n}.front"),
                addresses: vec![[172, 18, 0, n].into()],
            })
        };
        let read = |bytes: Vec<u8>| Message::from_vec(&bytes).unwrap();
        let few = read(asked.known(srv(2).collect(), Transport::Udp));
        assert_eq!((few.answers.len(), few.additionals.len()), (2, 2));
        assert_eq!(few.answers[0].data.to_string(), "0 0 80 web0.front.");
        let more = read(asked.known(srv(12).collect(), Transport::Udp));
        assert_eq!((more.answers.len(), more.additionals.len()), (12, 0));
        assert!(!more.metadata.truncation);
    }

    proptest::proptest! {
        /// CVE-2026-35406 and its kind: no packet whatever brings the parser down, and whatever gets an
        /// answer gets one that can be read, with its own id.
        #[test]
        fn any_packet_is_survived(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            survive(&bytes);
        }

        /// The same for packets that are nearly right.
        #[test]
        fn a_damaged_question_is_survived(
            name in "([a-z_][a-z0-9]{0,20}\\.){1,6}",
            edns in proptest::option::of(proptest::prelude::any::<u16>()),
            damage in proptest::collection::vec((0..80usize, proptest::prelude::any::<u8>()), 0..6),
            cut in 0..80usize,
        ) {
            let mut bytes = packet(&name, edns);
            for (at, byte) in damage {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            survive(&bytes);
            bytes.truncate(cut);
            survive(&bytes);
        }
    }

    fn survive(bytes: &[u8]) {
        let reply = match Asked::parse(bytes) {
            Ok(asked) => {
                asked.question();
                if let Some(sent) = asked.forwarded(1) {
                    Message::from_vec(&sent.extended).unwrap();
                    Message::from_vec(&sent.plain).unwrap();
                }
                asked.known(many(), Transport::Udp)
            }
            Err(Some(reply)) => reply,
            Err(None) => return,
        };
        let reply = Message::from_vec(&reply).unwrap();
        assert_eq!(reply.metadata.id.to_be_bytes(), bytes[..2]);
        assert_eq!(reply.metadata.message_type, MessageType::Response);
    }
}
