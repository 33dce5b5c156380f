use super::*;

#[test]
fn attributes_are_padded_nested_and_read_back() {
    let mut batch = Batch::new();
    batch
        .message(16, flags::CREATE, &[0; 16])
        .attr_text(3, "eth0")
        .nest(18, |info| {
            info.attr_text(1, "veth").nest_with_header(2, &[7; 16], |peer| {
                peer.attr_u32(4, 1400);
            });
        })
        .attr_u8(9, 1);
    let bytes = batch.as_bytes();
    assert_eq!(u32::from_ne_bytes(bytes[..4].try_into().unwrap()) as usize, bytes.len());
    assert_eq!(bytes.len() % 4, 0);
    let attrs = Attrs::after(&bytes[HEADER_LEN..], 16);
    assert_eq!(attrs.get(3).unwrap().text(), Some("eth0"));
    assert_eq!(attrs.get(9).unwrap().u8(), Some(1));
    let info = attrs.get(18).unwrap().nested();
    assert_eq!(info.get(1).unwrap().text(), Some("veth"));
    let peer = Attrs::after(info.get(2).unwrap().payload, 16);
    assert_eq!(peer.get(4).unwrap().u32(), Some(1400));
}

#[test]
fn a_cut_attribute_ends_the_walk() {
    let cut = [12, 0, 1, 0, 1, 2, 3, 4];
    assert!(Attrs::new(&cut).next().is_none());
    assert!(Attrs::new(&[3, 0, 1, 0]).next().is_none());
    assert!(Attrs::new(&[1, 0]).next().is_none());
}

#[test]
fn an_oversized_attribute_is_refused_before_sending() {
    let mut batch = Batch::new();
    batch.message(16, 0, &[0; 16]).nest(18, |info| {
        for _ in 0..3 {
            info.attr(1, &[0; 30_000]);
        }
    });
    let mut socket = Socket::open(Protocol::Route).unwrap();
    assert!(matches!(socket.transact(&mut batch), Err(NetlinkError::Oversized)));
}

#[test]
fn the_kernel_names_the_request_it_refused_and_why() {
    const RTM_SETLINK: u16 = 19;
    const RTM_GETLINK: u16 = 18;
    let mut loopback = [0; 16];
    loopback[4] = 1;
    let mut absent = [0; 16];
    absent[4..8].copy_from_slice(&i32::MAX.to_ne_bytes());

    let mut socket = Socket::open(Protocol::Route).unwrap();
    let mut batch = Batch::new();
    batch.message(RTM_GETLINK, 0, &loopback);
    batch.message(RTM_SETLINK, 0, &absent).tolerate(&[libc::ENODEV, libc::EPERM]);
    batch.message(RTM_GETLINK, 0, &absent);
    let mut names = Vec::new();
    let error = socket
        .transact_with(&mut batch, |reply| {
            names.push(reply.attrs(16).get(3).and_then(|name| name.text()).map(str::to_owned));
        })
        .unwrap_err();
    assert_eq!(names, [Some("lo".to_owned())]);
    assert_eq!((error.errno(), error.index()), (Some(libc::ENODEV), Some(2)));
    assert_eq!(socket.index_of("lo").unwrap(), Some(1));
    assert_eq!(socket.index_of("no-such-link").unwrap(), None);
}
