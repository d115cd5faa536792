import TestSupport
import Testing

/// The real client against a hostile server, watched by strace; `python3 Tests/Python/hostile.py martlet 10000` for longer.
@Suite(.timeLimit(.minutes(30)), .serialized)
struct HostileServerTests {
    @Test(.slow, .enabled(if: PythonScript.isInstalled("strace")))
    func theClientStaysInItsDirectoryAndWithItsServer() throws {
        try PythonScript.expectSuccess("hostile.py", ["25", "1"])
    }
}
