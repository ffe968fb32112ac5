//! Lays text out: tables with padded columns, lines with a label, colours where the terminal has them.

use super::text::plain;

/// What a piece of text means; a terminal shows it as a colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Something goes on that will end by itself, or was asked for.
    Busy,
    /// Wrong.
    Bad,
    /// Less important than the rest.
    Faint,
}

impl Tone {
    /// The parameter of the sequence "select graphic rendition" (ECMA-48).
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("32"),
            Self::Busy => Some("33"),
            Self::Bad => Some("31"),
            Self::Faint => Some("2"),
        }
    }
}

/// A piece of text with its meaning. Whatever it is made of, nothing in it acts on a terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
    /// A space stands before the text, if there is any.
    is_after_space: bool,
}

impl Cell {
    pub fn new(text: impl AsRef<str>, tone: Tone) -> Self {
        Self { text: plain(text.as_ref()), tone, is_after_space: false }
    }

    /// The same with a space before it, in a line of several cells.
    pub fn after_space(self) -> Self {
        Self { is_after_space: !self.text.is_empty(), ..self }
    }

    /// Text, or a dash for none.
    pub fn or_dash(text: Option<impl AsRef<str>>) -> Self {
        text.map_or_else(|| Self::new("-", Tone::Faint), |text| Self::new(text, Tone::Plain))
    }

    /// The text, with its colour if the terminal has colours.
    pub fn painted(&self, has_colours: bool) -> String {
        let space = if self.is_after_space { " " } else { "" };
        match self.tone.code().filter(|_| has_colours && !self.text.is_empty()) {
            Some(code) => format!("{space}\u{1b}[{code}m{}\u{1b}[0m", self.text),
            None => format!("{space}{}", self.text),
        }
    }

    fn width(&self) -> usize {
        self.text.chars().count() + usize::from(self.is_after_space)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::new(text, Tone::Plain)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// Rows of cells in columns.
pub struct Table {
    rows: Vec<Vec<Cell>>,
}

/// Spaces between two columns, as kubectl has them.
const GAP: usize = 3;

impl Table {
    pub fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|heading| Cell::new(heading, Tone::Faint)).collect()] }
    }

    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// The lines of the table, each with this before it.
    pub fn lines(&self, indent: &str, has_colours: bool) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(Cell::width).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
        let line = |row: &Vec<Cell>| {
            let mut line = indent.to_owned();
            for (column, cell) in row.iter().enumerate() {
                line.push_str(&cell.painted(has_colours));
                if row.iter().skip(column + 1).any(|cell| !cell.text.is_empty()) {
                    line.push_str(&" ".repeat(widths[column] - cell.width() + GAP));
                }
            }
            line
        };
        self.rows.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_with_text() {
        let mut table = Table::new(&["NAME", "READY", "WHY"]);
        table.row(vec!["a".into(), Cell::new("yes", Tone::Good), "".into()]);
        table.row(vec!["a-long-name".into(), Cell::new("no", Tone::Bad), "x\u{1b}[2J".into()]);
        assert_eq!(
            table.lines("  ", false),
            ["  NAME          READY   WHY", "  a             yes", "  a-long-name   no      x\\u{1b}[2J"]
        );
        let coloured = table.lines("", true);
        assert_eq!(coloured[1], "a             \u{1b}[32myes\u{1b}[0m");
        assert_eq!(coloured[2], "a-long-name   \u{1b}[31mno\u{1b}[0m      x\\u{1b}[2J");
    }
}
