//! Questions off the wire, answers onto it (RFC 1035, EDNS: RFC 6891).

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use portolan_netcore::dns::{Question, QuestionType, RecordData, TTL_SECONDS};

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
            _ => QuestionType::Other,
        };
        Question { name: &self.name, kind }
    }

    /// What makes two questions the same to an upstream.
    pub(crate) fn key(&self) -> (String, u16, u16, bool) {
        let dnssec_ok = self.message.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
        let class = u16::from(self.query.query_class);
        (self.name.to_ascii_lowercase(), u16::from(self.query.query_type), class, dnssec_ok)
    }

    /// The question for an upstream, with an id of our own.
    pub(crate) fn forwarded(&self, id: u16) -> Option<Vec<u8>> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = self.message.metadata.recursion_desired;
        message.metadata.checking_disabled = self.message.metadata.checking_disabled;
        message.add_query(self.query.clone());
        let mut edns = Edns::new();
        edns.set_max_payload(OUR_UDP_BYTES);
        edns.set_dnssec_ok(self.key().3);
        message.set_edns(edns);
        message.to_vec().ok()
    }

    /// An answer with these records; NODATA if there are none.
    pub(crate) fn known(&self, records: Vec<RecordData>, transport: Transport) -> Vec<u8> {
        let mut response = self.response(ResponseCode::NoError);
        response.metadata.authoritative = true;
        for data in records {
            let data = match data {
                RecordData::A(ip) => RData::A(A(ip)),
                RecordData::Aaaa(ip) => RData::AAAA(AAAA(ip)),
                RecordData::Ptr(name) => match Name::from_ascii(format!("{name}.")) {
                    Ok(name) => RData::PTR(PTR(name)),
                    Err(_) => continue,
                },
            };
            response.add_answer(Record::from_rdata(self.query.name.clone(), TTL_SECONDS, data));
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

    /// Over UDP, an answer longer than the client takes is cut to its header with TC set, and the
    /// client asks again over TCP.
    fn encode(&self, response: Message, transport: Transport) -> Vec<u8> {
        let bytes = response.to_vec().unwrap_or_default();
        let limit =
            self.message.edns.as_ref().map_or(PLAIN_UDP_BYTES, |e| e.max_payload().max(PLAIN_UDP_BYTES));
        if transport == Transport::Udp && bytes.len() > usize::from(limit) {
            return response.truncate().to_vec().unwrap_or_default();
        }
        bytes
    }
}

/// Is `answer` what `sent` asked for? Guards against off-path forgeries (RFC 5452 9.1).
pub(crate) fn matches(sent: &[u8], answer: &Message) -> bool {
    let Ok(sent) = Message::from_vec(sent) else { return false };
    answer.metadata.message_type == MessageType::Response
        && answer.metadata.id == sent.metadata.id
        && answer.queries.len() == 1
        && answer.queries[0].name.eq_ignore_root(&sent.queries[0].name)
        && answer.queries[0].query_type == sent.queries[0].query_type
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
        assert!(matches(&sent, &upstream));
        let relayed = Message::from_vec(&asked.relayed(&upstream, 20, Transport::Udp)).unwrap();
        assert_eq!((relayed.metadata.id, relayed.answers[0].ttl), (7, 40));
        upstream.metadata.id = 98;
        assert!(!matches(&sent, &upstream));
    }
}
