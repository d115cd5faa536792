import Foundation
import TestSupport
import Testing

/// Whether Python has what the script needs: cryptography with HPKE over X-Wing, from 48 on.
private let hasCryptography: Bool = {
    let imports = "import numpy; from cryptography.hazmat.primitives import hpke; hpke.KEM.MLKEM768_X25519"
    let run = try? ServerProcess.capture("/usr/bin/env", [ServerProcess.python ?? "python3", "-c", imports])
    return run?.status == 0
}()

/// `martlet helper serve`, with a server and devices that are written in Python and share no code with it.
@Suite(.timeLimit(.minutes(30)))
struct HelperProcessTests {
    @Test(
        .enabled(if: hasCryptography, "Python lacks numpy or cryptography 48: pip install numpy cryptography"),
        arguments: ["session", "wrong", "kills"]
    )
    func aSessionDrivenByPython(_ part: String) throws {
        try PythonScript.expectSuccess("helper_session.py", [part])
    }

    @Test(
        "A server trains through a helper: with devices that are written in Python, and with real ones.",
        .enabled(if: hasCryptography, "Python lacks numpy or cryptography 48: pip install numpy cryptography"),
        arguments: ["plain", "private", "clients"]
    )
    func aRoundThroughAHelper(_ part: String) throws {
        try PythonScript.expectSuccess("masked_round.py", [part])
    }

    /// A helper shares no directory with a server, and no token is everybody's.
    @Test func aHelperIsNotWhereAServerIs() throws {
        let directory = try TemporaryDirectory()
        let server = try ServerProcess.start(dataDirectory: directory.path)
        server.stop(SIGTERM)
        let there = try ServerProcess.capture(
            ServerProcess.binary,
            ["helper", "serve", "--data-dir", directory.path, "--listen", "127.0.0.1:0"]
        )
        #expect(there.status != 0 && there.output.contains("is a server's data directory"), "\(there.output)")
        let open = try ServerProcess.capture(
            ServerProcess.binary,
            ["helper", "serve", "--data-dir", directory.path + "/h", "--listen", "127.0.0.1:0", "--insecure-no-auth"]
        )
        #expect(open.status != 0 && open.output.contains("not for helpers"), "\(open.output)")
    }

    @Test(.enabled(if: ServerProcess.python != nil, "scripts/test sets MARTLET_TEST_PYTHON"))
    func theHelpersDescriptionIsValidOpenAPI() throws {
        let code = """
            import sys, yaml
            from openapi_spec_validator import validate
            validate(yaml.safe_load(open(sys.argv[1])))
            """
        let path = ServerProcess.repository + "/openapi-helper.yaml"
        let run = try ServerProcess.capture(try #require(ServerProcess.python), ["-c", code, path])
        #expect(run.status == 0, "\(run.output)")
    }
}
