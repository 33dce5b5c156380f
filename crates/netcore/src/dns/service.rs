//! Names of services, RFC 2782: `_port._protocol.name`.

use crate::model::Proto;

/// Service names of IANA's registry that containers commonly offer; any other port goes by its number.
const SERVICES: [(&str, u16); 22] = [
    ("amqp", 5672),
    ("domain", 53),
    ("ftp", 21),
    ("http", 80),
    ("http-alt", 8080),
    ("https", 443),
    ("imap", 143),
    ("imaps", 993),
    ("kerberos", 88),
    ("ldap", 389),
    ("ldaps", 636),
    ("memcache", 11211),
    ("mqtt", 1883),
    ("ms-sql-s", 1433),
    ("mysql", 3306),
    ("nfs", 2049),
    ("ntp", 123),
    ("postgresql", 5432),
    ("redis", 6379),
    ("smtp", 25),
    ("ssh", 22),
    ("submission", 587),
];

/// What a service's name asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Service<'a> {
    pub(super) proto: Proto,
    pub(super) port: u16,
    /// The rest of the name: whose service.
    pub(super) host: &'a str,
}

/// Takes `_80._tcp.web` or `_http._tcp.web` apart; lower case.
pub(super) fn parse(name: &str) -> Option<Service<'_>> {
    let (port, rest) = name.strip_prefix('_')?.split_once('.')?;
    let (proto, host) = rest.strip_prefix('_')?.split_once('.')?;
    let port = if port.bytes().all(|b| b.is_ascii_digit()) {
        port.parse().ok()?
    } else {
        SERVICES.iter().find(|(service, _)| *service == port)?.1
    };
    Some(Service { proto: proto.parse().ok()?, port, host })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_has_a_number_or_a_name() {
        let tcp = |port, host| Some(Service { proto: Proto::Tcp, port, host });
        assert_eq!(parse("_80._tcp.web"), tcp(80, "web"));
        assert_eq!(parse("_postgresql._tcp.db.front"), tcp(5432, "db.front"));
        assert_eq!(parse("_53._udp.dns").map(|s| s.proto), Some(Proto::Udp));
        for not in
            ["web", "_80.web", "_80._icmp.web", "_70000._tcp.web", "_nosuch._tcp.web", "_80._tcp", "_._tcp.a"]
        {
            assert_eq!(parse(not), None, "{not}");
        }
    }
}
