//! What the daemon asks of the resolver.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, PoisonError};

use crate::listen::Listener;
use crate::protocol::{Reply, Request, VERSION, receive, send};
use crate::server::Shared;

/// A daemon hung up; should the resolver go on?
enum Ended {
    Quit,
    HungUp,
}

/// Talks to daemons, one thread each (there is one at a time, and two for a moment when it is replaced).
/// Returns when told to quit, or when the last daemon has gone and no sandbox is served.
pub(crate) fn serve(shared: &Arc<Shared>, listener: &UnixListener) {
    let (ended, endings) = channel();
    let Ok(listener) = listener.try_clone() else { return };
    let accepting = shared.clone();
    let accept = move || {
        for stream in listener.incoming().flatten() {
            let (shared, ended) = (accepting.clone(), ended.clone());
            std::thread::spawn(move || talk(&shared, stream, &ended));
        }
    };
    std::thread::spawn(accept);
    for ending in endings {
        match ending {
            Ended::Quit => return,
            Ended::HungUp if shared.sandboxes().is_empty() => return,
            Ended::HungUp => {}
        }
    }
}

fn talk(shared: &Arc<Shared>, mut stream: UnixStream, ended: &Sender<Ended>) {
    let ending = loop {
        match receive::<Request>(&mut stream) {
            Ok(Some((Request::Quit, _))) => {
                let _ = send(&mut stream, &Reply::Done, None);
                break Ended::Quit;
            }
            Ok(Some((request, fd))) => {
                let back = given(shared, &request);
                let reply = handle(shared, request, fd);
                if send(&mut stream, &reply, back.as_ref().map(AsFd::as_fd)).is_err() {
                    break Ended::HungUp;
                }
            }
            Ok(None) => break Ended::HungUp,
            Err(error) => {
                tracing::warn!(%error, "the daemon sent something that is no request");
                break Ended::HungUp;
            }
        }
    };
    let _ = ended.send(ending);
}

/// The descriptor that goes with the reply.
fn given(shared: &Shared, request: &Request) -> Option<OwnedFd> {
    let Request::Kept = request else { return None };
    let kept = shared.kept.lock().unwrap_or_else(PoisonError::into_inner);
    // It stays here too: the daemon that asks may die like the last one.
    kept.as_ref().and_then(|kept| kept.try_clone().ok())
}

fn handle(shared: &Arc<Shared>, request: Request, netns: Option<OwnedFd>) -> Reply {
    match request {
        Request::Keep => {
            *shared.kept.lock().unwrap_or_else(PoisonError::into_inner) = netns;
            Reply::Done
        }
        Request::Kept => Reply::Kept,
        Request::Status => {
            let serving =
                shared.sandboxes().iter().map(|(id, listener)| (id.clone(), listener.ports)).collect();
            Reply::Status { pid: std::process::id(), serving, version: VERSION }
        }
        Request::Serve { sandbox, udp, tcp } => {
            if let Some(listener) = shared.sandboxes().get(&sandbox) {
                return Reply::Serving { udp: listener.ports.0, tcp: listener.ports.1 };
            }
            let Some(netns) = netns else { return Reply::Failed("no network namespace came along".into()) };
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
        // Handled by the caller, which has to end the process.
        Request::Quit => Reply::Done,
    }
}
