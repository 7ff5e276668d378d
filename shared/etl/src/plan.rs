//! The files that say how tables are made: program, columns, lists.

use crate::columns::{BadColumns, Columns};
use crate::lists::{BadList, ListFiles, Lists};
use crate::program::LineProgram;
use crate::vrl_program::VrlProgram;
use logferry_transform::{Program, ProgramError, Runner, Transform, UnknownZone};
use std::path::{Path, PathBuf};

/// Where they are.
#[derive(Clone, Debug, Default)]
pub struct PlanFiles {
    /// A program in VRL.
    pub program: PathBuf,
    /// The columns file.
    pub columns: PathBuf,
    /// The lists.
    pub lists: ListFiles,
}

/// All of them, loaded.
#[derive(Debug)]
pub struct Plan {
    /// Compiled.
    pub program: Program,
    /// What is written.
    pub columns: Columns,
    /// What is kept.
    pub lists: Lists,
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadPlan {
    /// The program.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The columns file.
    #[error(transparent)]
    Columns(#[from] BadColumns),
    /// A list.
    #[error(transparent)]
    List(#[from] BadList),
    /// The time zone for times that have none.
    #[error(transparent)]
    Zone(#[from] UnknownZone),
}

impl Plan {
    /// Loads all files.
    ///
    /// # Errors
    /// Names the file and what is wrong in it.
    pub fn load(files: &PlanFiles) -> Result<Plan, BadPlan> {
        Ok(Plan {
            program: Program::from_file(&files.program)?,
            columns: Columns::load(&files.columns)?,
            lists: Lists::load(&files.lists)?,
        })
    }

    /// The program, ready to run; `zone` is that of times without one.
    ///
    /// # Errors
    /// The zone is not known.
    pub fn line_program(&self, zone: &str) -> Result<Box<dyn LineProgram>, BadPlan> {
        line_program(self.program.clone(), zone)
    }
}

/// Compiles a program.
///
/// # Errors
/// Names the file, the line and what is wrong there.
pub fn compile(path: &Path) -> Result<Program, BadPlan> {
    Ok(Program::from_file(path)?)
}

/// A program without the rest of a plan, ready to run.
///
/// # Errors
/// The zone is not known.
pub fn line_program(program: Program, zone: &str) -> Result<Box<dyn LineProgram>, BadPlan> {
    Ok(Box::new(VrlProgram::new(Runner::new(Transform::Program(program), zone)?)))
}
