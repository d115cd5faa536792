import BenchmarkHarness
import Foundation

/// nginx beside us, as the limit that a file server reaches on this machine: sendfile, one worker a core, no access log.
final class NginxPeer {
    let url: String
    let port: Int
    private let command: Command

    /// Starts nginx over a directory of files; `PUT /put/NAME` writes a file.
    init(workspace: String, port: Int) throws {
        let root = workspace + "/nginx"
        for name in ["", "/files", "/files/put", "/body"] {
            try FileManager.default.createDirectory(atPath: root + name, withIntermediateDirectories: true)
        }
        let configuration = """
            daemon off; worker_processes \(ProcessInfo.processInfo.activeProcessorCount); pid \(root)/pid;
            error_log stderr error; user root;
            events { worker_connections 1024; }
            http {
              access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 1000000000;
              open_file_cache max=100; client_max_body_size 0; client_body_temp_path \(root)/body;
              client_body_buffer_size 1m; default_type application/octet-stream;
              server {
                listen 127.0.0.1:\(port); root \(root)/files;
                location /put/ { dav_methods PUT; }
              }
            }
            """
        try configuration.write(toFile: root + "/nginx.conf", atomically: true, encoding: .utf8)
        command = try Command(start: ["nginx", "-e", "stderr", "-p", root, "-c", root + "/nginx.conf"])
        url = "http://127.0.0.1:\(port)"
        self.port = port
        files = root + "/files"
        for _ in 0..<200 {
            if FileManager.default.fileExists(atPath: root + "/pid") { break }
            usleep(20_000)
        }
    }

    /// Where served files lie.
    let files: String

    deinit { command.stop() }

    /// A port that is free at the moment.
    static func freePort() throws -> Int {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let status = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, length) == 0 ? getsockname(descriptor, $0, &length) : -1
            }
        }
        guard status == 0 else { throw BenchmarkError("no free port") }
        return Int(UInt16(bigEndian: address.sin_port))
    }
}
