//! Programs that run beside a test: those that attack meanwhile.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

/// Tries, for so many seconds, what is closed to it: the container 172.17.0.2 itself, and port 8002 of the
/// host 198.51.100.2, which is published on its loopback.
pub const ATTACKER: &str = "
import socket, sys, time
end = time.time() + float(sys.argv[1])
opened = tried = 0
print('ready', flush=True)
while time.time() < end:
    for place in (('172.17.0.2', 7000), ('172.17.0.2', 7001), ('198.51.100.2', 8002), ('127.0.0.1', 8002)):
        s = socket.socket(); s.settimeout(0.03); tried += 1
        try:
            s.connect(place); opened += 1
        except OSError: pass
        s.close()
print('opened', opened, 'of', tried, flush=True)
";

/// Starts a script with one argument; `prefix` says where.
pub fn python(prefix: Vec<std::ffi::OsString>, script: &str, argument: &str) -> Child {
    let mut words = prefix;
    words.extend(["python3", "-c", script, argument].map(Into::into));
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).stdout(Stdio::piped()).stdin(Stdio::null());
    command.spawn().expect("python3 runs")
}

/// Waits for a script's word that it has begun.
#[track_caller]
pub fn ready(child: &mut Child) -> BufReader<ChildStdout> {
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut line = String::new();
    lines.read_line(&mut line).expect("it speaks");
    assert_eq!(line, "ready\n");
    lines
}

/// What a script says at its end.
pub fn said((mut child, mut lines): (Child, BufReader<ChildStdout>)) -> String {
    let mut text = String::new();
    lines.read_to_string(&mut text).expect("it ends");
    child.wait().expect("it is ours");
    text.trim().to_owned()
}
