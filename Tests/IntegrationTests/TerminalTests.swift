import TestSupport
import Testing

/// What the commands print, to a pipe and to a terminal; each scenario says in its script what it expects.
@Suite(.timeLimit(.minutes(30)), .serialized)
struct TerminalTests {
    @Test(
        .slow,
        arguments: ["watching", "watching_a_long_run", "explaining_and_plotting", "first_mistakes", "completing"]
    )
    func theCommandsInATerminal(_ scenario: String) throws {
        try PythonScript.expectSuccess("terminal.py", [scenario])
    }
}
