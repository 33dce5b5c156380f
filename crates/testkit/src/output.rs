//! What a command did.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

/// A command that has ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// The command, for messages.
    pub command: String,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Exit code; 128 and the signal if one ended it.
    pub code: i32,
}

impl Output {
    /// Standard output without white space at its ends, after checking that the command succeeded.
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert!(self.code == 0, "{} exited with {}\n{}{}", self.command, self.code, self.stdout, self.stderr);
        self.stdout.trim()
    }

    /// Standard error, after checking that the command failed.
    #[track_caller]
    pub fn fails(&self) -> &str {
        assert!(self.code != 0, "{} should fail but printed\n{}{}", self.command, self.stdout, self.stderr);
        self.stderr.trim()
    }

    /// Both streams.
    pub fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Standard output as JSON, after checking that the command succeeded.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        let text = self.ok();
        serde_json::from_str(text)
            .unwrap_or_else(|error| panic!("{} printed no JSON ({error}):\n{text}", self.command))
    }
}

/// Runs a command to its end, with `input` on standard input.
pub fn run<S: AsRef<OsStr>>(words: &[S], input: Option<&[u8]>) -> Output {
    let text: Vec<_> = words.iter().map(|w| w.as_ref().to_string_lossy()).collect();
    let text = text.join(" ");
    let mut command = Command::new(words.first().expect("a command has a name"));
    command.args(&words[1..]).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{text}: {error}"));
    let feeding = child.stdin.take().zip(input.map(<[u8]>::to_vec)).map(|(mut stdin, bytes)| {
        // A command may end without reading all of it.
        std::thread::spawn(move || drop(std::io::Write::write_all(&mut stdin, &bytes)))
    });
    let output = child.wait_with_output().unwrap_or_else(|error| panic!("{text}: {error}"));
    if let Some(feeding) = feeding {
        let _ = feeding.join();
    }
    let signal = std::os::unix::process::ExitStatusExt::signal(&output.status).unwrap_or(0);
    Output {
        command: text,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        code: output.status.code().unwrap_or(128 + signal),
    }
}
