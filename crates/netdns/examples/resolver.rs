//! The resolver by itself, for tests: `resolver SOCKET`.

fn main() {
    let socket = std::env::args_os().nth(1).expect("usage: resolver SOCKET");
    portolan_netdns::run(socket.as_ref()).expect("the resolver runs");
}
