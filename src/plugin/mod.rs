//! `kubectl flinkha`: what people see and do at a terminal. The program is the operator's, called `kubectl-flinkha`, or
//! with the first argument `kubectl`.
//!
//! It reads objects with the rights of whoever runs it, and asks for something only by the fields and annotations that
//! everybody may write: it decides nothing about a cluster. What it shows is made in [`view`], which is pure.

pub mod access;
pub mod arguments;
pub mod changes;
pub mod clusters;
pub mod completion;
pub mod doctor;
pub mod exec;
pub mod failure;
pub mod gc;
pub mod history;
pub mod inspect;
pub mod install;
pub mod logs;
pub mod operate;
pub mod output;
pub mod parsers;
pub mod report;
pub mod rest;
pub mod status;
pub mod view;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;

use self::access::PluginAccess;
use self::arguments::{PluginArguments, PluginCommand};
use self::failure::Failure;
use self::output::Output;

/// Name of the program by which kubectl finds it as a plugin.
pub const PROGRAM: &str = "kubectl-flinkha";
/// Name of the program by which kubectl finds out how the plugin's words go on.
pub const COMPLETION_PROGRAM: &str = "kubectl_complete-flinkha";
/// The first word of a command line for completion.
pub const COMPLETION: &str = "__complete";

/// Runs a command of the plugin; `words` are its arguments, without the program's name.
pub async fn run(words: Vec<OsString>) -> ExitCode {
    match carry_out(words).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}

fn shows_help(kind: ErrorKind) -> bool {
    use ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    matches!(kind, DisplayHelp | DisplayHelpOnMissingArgumentOrSubcommand | DisplayVersion)
}

async fn carry_out(words: Vec<OsString>) -> Result<(), Failure> {
    let output = Output::of_process();
    if words.first().is_some_and(|word| word == COMPLETION) {
        let words: Vec<String> = words[1..].iter().map(|word| word.to_string_lossy().into_owned()).collect();
        return output.write(&completion::complete(&words).await);
    }
    let words = std::iter::once(OsString::from(PROGRAM)).chain(words);
    let arguments = match PluginArguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(error) if shows_help(error.kind()) => return output.write(&error.to_string()),
        Err(error) => return Err(Failure::Input(arguments::sentence(&error))),
    };
    if let PluginCommand::Install(of) = &arguments.command {
        return output.write(&install::manifest(of, arguments.access.namespace.as_deref())?);
    }
    let is_endless = matches!(&arguments.command, PluginCommand::Logs(arguments) if arguments.follow);
    let access = PluginAccess::of(&arguments.access, is_endless).await?;
    match &arguments.command {
        PluginCommand::Status(arguments) => status::status(&access, arguments, output).await,
        PluginCommand::History(arguments) => history::history(&access, arguments, output).await,
        PluginCommand::Inspect(arguments) => inspect::inspect(&access, arguments, output).await,
        PluginCommand::Logs(arguments) => logs::logs(&access, arguments, output).await,
        PluginCommand::Doctor(arguments) => doctor::doctor(&access, arguments, output).await,
        PluginCommand::Gc(arguments) => gc::gc(&access, arguments, output).await,
        PluginCommand::Report(arguments) => report::report(&access, arguments, output).await,
        PluginCommand::Rest(arguments) => rest::rest(&access, arguments, output).await,
        // It needs no API server.
        PluginCommand::Install(_) => Ok(()),
        PluginCommand::Switchover(arguments) => operate::switchover(&access, arguments, output).await,
        PluginCommand::Savepoint(arguments) => operate::savepoint(&access, arguments, output).await,
        PluginCommand::Restart(of) => operate::change(&access, &of.name, output, changes::restart).await,
        PluginCommand::Suspend(of) => operate::change(&access, &of.name, output, changes::suspend).await,
        PluginCommand::Resume(of) => operate::change(&access, &of.name, output, changes::resume).await,
        PluginCommand::Pause(of) => operate::change(&access, &of.name, output, changes::pause).await,
        PluginCommand::Unpause(of) => operate::change(&access, &of.name, output, changes::unpause).await,
    }
}
