//! What the daemon asks of the resolver.

use std::io;
use std::ops::Bound;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use rustix::net::{Shutdown, shutdown, sockopt};

use crate::listen::Listener;
use crate::protocol::{MAX_DESCRIPTORS, Reply, Request, VERSION, receive, send};
use crate::server::Shared;

/// A daemon hung up; should the resolver go on?
enum Ended {
    Quit,
    HungUp,
}

/// So often one without a daemon looks whether another could still come.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Talks to daemons, one thread each (there is one at a time, and two for a moment when it is replaced; and
/// whoever asks before it connects for good). Returns when told to quit, or when the last daemon has gone and
/// there is nothing to do for the next: no sandbox is served, and nothing kept. Or there will be no next one that
/// comes here: what is kept would be in its way.
pub(crate) fn serve(shared: &Arc<Shared>, listener: &UnixListener, can_be_found: impl Fn() -> bool) {
    let (ended, endings) = channel();
    let Ok(listener) = listener.try_clone() else { return };
    let talking = Arc::new(AtomicUsize::new(0));
    let (accepting, begun) = (shared.clone(), talking.clone());
    let accept = move || {
        for stream in listener.incoming().flatten() {
            let (shared, ended, talking) = (accepting.clone(), ended.clone(), begun.clone());
            talking.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || {
                let ending = talk(&shared, stream);
                talking.fetch_sub(1, Ordering::SeqCst);
                let _ = ended.send(ending);
            });
        }
    };
    std::thread::spawn(accept);
    let is_alone = || talking.load(Ordering::SeqCst) == 0;
    loop {
        let ending = match is_alone() {
            true => endings.recv_timeout(LOOK_AGAIN),
            false => endings.recv().map_err(RecvTimeoutError::from),
        };
        match ending {
            Ok(Ended::Quit) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(Ended::HungUp) if is_alone() => {
                if shared.sandboxes().is_empty() && shared.kept().is_empty() {
                    return;
                }
                shared.kept().values().for_each(stop_listening);
            }
            Ok(Ended::HungUp) | Err(RecvTimeoutError::Timeout) => {}
        }
        if is_alone() && !can_be_found() {
            tracing::warn!("its socket was removed: no daemon will come here any more");
            return;
        }
    }
}

/// Nobody accepts any more: clients are refused at once, and do not wait for the next daemon. The port stays
/// bound.
fn stop_listening(kept: &OwnedFd) {
    if sockopt::socket_acceptconn(kept).unwrap_or(false) {
        // It may have ended meanwhile.
        let _ = shutdown(kept, Shutdown::Read);
    }
}

fn talk(shared: &Arc<Shared>, mut stream: UnixStream) -> Ended {
    loop {
        let answered = match receive::<Request>(&mut stream) {
            Ok(Some((Request::Quit, _))) => {
                let _ = send(&mut stream, &Reply::Done, &[]);
                return Ended::Quit;
            }
            Ok(Some((Request::Kept { after }, _))) => give(shared, &mut stream, after),
            Ok(Some((request, fds))) => send(&mut stream, &handle(shared, request, fds), &[]),
            Ok(None) => return Ended::HungUp,
            Err(error) => {
                tracing::warn!(%error, "the daemon sent something that is no request");
                return Ended::HungUp;
            }
        };
        if answered.is_err() {
            return Ended::HungUp;
        }
    }
}

/// Gives what is kept. It stays here too: the daemon that asks may die like the last one.
fn give(shared: &Shared, stream: &mut UnixStream, after: Option<String>) -> io::Result<()> {
    let kept = shared.kept();
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let page = kept.range((from, Bound::Unbounded)).take(MAX_DESCRIPTORS);
    let (names, fds): (Vec<String>, Vec<BorrowedFd<'_>>) =
        page.map(|(name, fd)| (name.clone(), fd.as_fd())).unzip();
    send(stream, &Reply::Kept { names }, &fds)
}

fn handle(shared: &Arc<Shared>, request: Request, fds: Vec<OwnedFd>) -> Reply {
    match request {
        Request::Keep { names } => {
            let count = fds.len();
            shared.kept().extend(names.into_iter().zip(fds));
            Reply::Keeping { count }
        }
        Request::Forget { names } => {
            let mut kept = shared.kept();
            names.iter().for_each(|name| drop(kept.remove(name)));
            Reply::Done
        }
        Request::Status => {
            let serving =
                shared.sandboxes().iter().map(|(id, listener)| (id.clone(), listener.ports)).collect();
            Reply::Status { pid: std::process::id(), serving, version: VERSION }
        }
        Request::Serve { sandbox, udp, tcp } => {
            if let Some(listener) = shared.sandboxes().get(&sandbox) {
                return Reply::Serving { udp: listener.ports.0, tcp: listener.ports.1 };
            }
            let Some(netns) = fds.into_iter().next() else {
                return Reply::Failed("no network namespace came along".into());
            };
            match Listener::in_sandbox(shared, sandbox.clone(), netns, (udp, tcp)) {
                Ok(listener) => {
                    let (udp, tcp) = listener.ports;
                    shared.sandboxes().insert(sandbox, listener);
                    Reply::Serving { udp, tcp }
                }
                Err(error) => {
                    Reply::Failed(format!("opening sockets in sandbox {}: {error}", sandbox.short()))
                }
            }
        }
        Request::Stop { sandbox } => {
            shared.sandboxes().remove(&sandbox);
            Reply::Done
        }
        Request::Configure(settings) => match shared.configure(&settings) {
            Ok(()) => Reply::Done,
            Err(reason) => Reply::Failed(reason),
        },
        Request::Replace(changes) => {
            shared.replace_zones(changes);
            Reply::Done
        }
        Request::Update(changes) => {
            shared.change_zones(changes);
            Reply::Done
        }
        // Handled by the caller, which has to end the process, or to send more than a reply.
        Request::Quit | Request::Kept { .. } => Reply::Done,
    }
}
