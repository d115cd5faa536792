import Foundation
import TestSupport
import Testing

/// The accountants beside dp-accounting and Opacus on 200 random cases; the script says what is expected of each.
@Suite(
    .timeLimit(.minutes(30)),
    .enabled(
        if: AccountantPeers.isAnyInstalled,
        "neither dp-accounting nor opacus is installed for MARTLET_TEST_PYTHON: pip install dp-accounting opacus"
    )
)
struct AccountantPeersTests {
    @Test(.slow) func randomCasesAgree() throws {
        try PythonScript.expectSuccess("accountants.py", [])
    }
}

/// Other people's accountants.
enum AccountantPeers {
    static let isAnyInstalled: Bool = {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        let question =
            "import importlib.util as u, sys; sys.exit(not (u.find_spec('dp_accounting') or u.find_spec('opacus')))"
        process.arguments = [ServerProcess.python ?? "python3", "-c", question]
        process.standardError = FileHandle.nullDevice
        guard (try? process.run()) != nil else { return false }
        process.waitUntilExit()
        return process.terminationStatus == 0
    }()
}
