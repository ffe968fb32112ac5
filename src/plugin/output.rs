//! Writes reports to standard output.

use std::io::{ErrorKind, IsTerminal, Write, stdout};

use serde::Serialize;

use super::failure::Failure;
use super::view::text::{json, yaml};

/// The format of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Json,
    Yaml,
}

/// Standard output.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    pub is_terminal: bool,
    /// It is a terminal whose user wants colours: neither `NO_COLOR` nor `TERM=dumb` is set.
    pub has_colours: bool,
}

impl Output {
    pub fn of_process() -> Self {
        let is_terminal = stdout().is_terminal();
        let wants_none = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
        Self { is_terminal, has_colours: is_terminal && !wants_none && !is_dumb }
    }

    /// Writes text as it is.
    ///
    /// # Errors
    /// When the output is closed or cannot be written.
    pub fn write(&self, text: &str) -> Result<(), Failure> {
        self.write_bytes(text.as_bytes())
    }

    /// Writes what a program gets as it is.
    ///
    /// # Errors
    /// As for [`Self::write`].
    pub fn write_bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut output = stdout().lock();
        output.write_all(bytes).and_then(|()| output.flush()).map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => Failure::Closed,
            _ => Failure::Request(format!("failed to write to standard output: {error}")),
        })
    }

    /// Writes a report in this format, or as the text that `screen` makes of it.
    ///
    /// # Errors
    /// As for [`Self::write`].
    pub fn report(
        &self,
        format: Option<Format>,
        report: &impl Serialize,
        screen: impl FnOnce(bool) -> String,
    ) -> Result<(), Failure> {
        self.write(&self.text(format, report, screen))
    }

    /// A report in this format, or the text that `screen` makes of it.
    pub fn text(&self, format: Option<Format>, report: &impl Serialize, screen: impl FnOnce(bool) -> String) -> String {
        match format {
            Some(Format::Json) => json(report),
            Some(Format::Yaml) => yaml(report),
            None => screen(self.has_colours),
        }
    }
}
