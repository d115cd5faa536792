import Foundation
import TestSupport
import Testing

/// A device whose wall clock jumps while it works: deadlines and budgets count elapsed time, so nothing happens.
@Suite(.timeLimit(.minutes(30)), .serialized)
struct ClockTests {
    /// A library that moves the wall clock of the process that loads it, from its second second on.
    private static let shim = """
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <stdlib.h>
        #include <sys/time.h>
        #include <time.h>
        static int (*real)(clockid_t, struct timespec *);
        static struct timespec start;
        static long jump(void) {
            struct timespec now;
            if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
            real(CLOCK_MONOTONIC, &now);
            if (!start.tv_sec) start = now;
            return now.tv_sec - start.tv_sec >= 1 ? atol(getenv("CLOCK_JUMP")) : 0;
        }
        int clock_gettime(clockid_t clock, struct timespec *out) {
            long by = jump();
            int result = real(clock, out);
            if (clock == CLOCK_REALTIME) out->tv_sec += by;
            return result;
        }
        int gettimeofday(struct timeval *out, void *zone) {
            struct timespec now;
            clock_gettime(CLOCK_REALTIME, &now);
            out->tv_sec = now.tv_sec;
            out->tv_usec = now.tv_nsec / 1000;
            return 0;
        }
        """

    /// The example's trainer after three seconds of waiting, within the minutes that the run gives it.
    private static let trainer = """
        #!/bin/bash
        sleep 3
        exec python3 \(ServerProcess.repository)/Examples/trainers/plain-python/trainer.py
        """

    /// A model of zeros: `weight` of 3 and `bias` of 1.
    private static var model: Data {
        let header =
            #"{"bias":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"#
            + #""weight":{"dtype":"F32","shape":[3],"data_offsets":[4,16]}}"#
        var data = Data([UInt8(header.utf8.count), 0, 0, 0, 0, 0, 0, 0])
        data.append(contentsOf: header.utf8)
        data.append(Data(count: 16))
        return data
    }

    @Test(.slow, arguments: [7200, -7200])
    func aJumpOfTheWallClockEndsNoTraining(by seconds: Int) throws {
        let directory = try TemporaryDirectory()
        let path = directory.path
        try Self.shim.write(toFile: path + "/clock.c", atomically: true, encoding: .utf8)
        let compiled = try ServerProcess.capture(
            "/usr/bin/env",
            ["clang", "-shared", "-fPIC", "-o", path + "/clock.so", path + "/clock.c", "-ldl"]
        )
        try #require(compiled.status == 0, "\(compiled.output)")
        try Self.trainer.write(toFile: path + "/trainer", atomically: true, encoding: .utf8)
        #expect(chmod(path + "/trainer", 0o700) == 0)
        let server = try ServerProcess.start(dataDirectory: path + "/data")
        defer { server.stop(SIGTERM) }
        try """
        {"population": "p", "rounds": 1, "model": {"architecture": "external"},
         "cohort": {"goal": 1, "minimum": 1, "over_selection": 1}}
        """.write(toFile: path + "/run.json", atomically: true, encoding: .utf8)
        try Self.model.write(to: URL(fileURLWithPath: path + "/model.safetensors"))
        try "a,b,c,y\n1,0,0,1\n0,1,0,0\n".write(toFile: path + "/rows.csv", atomically: true, encoding: .utf8)
        #expect(try server.martlet("population", "create", "p").status == 0)
        let created = try server.martlet("run", "create", path + "/run.json", "--json")
        let run = String(try #require(created.output.firstMatch(of: /run_[0-9a-f]+/), "\(created.output)").0)
        let runURL = server.url + "/v1/runs/" + run
        let type = "Content-Type: application/vnd.safetensors"
        let put = try server.curl("-X", "PUT", "-T", path + "/model.safetensors", "-H", type, runURL + "/model")
        #expect(put.contains(" 201 "), "\(put)")
        #expect(try server.martlet("run", "start", run).status == 0)
        let tokens = try server.martlet("population", "token", "p", "--json").output
        let token = try #require(tokens.split(separator: "\"").dropLast().last)
        let client = try server.run(
            ServerProcess.binary,
            [
                "client", "--enrollment-token", String(token), "--data", path + "/rows.csv", "--state-dir", path + "/c",
                "--trainer-command", path + "/trainer", "--once",
            ],
            environment: ["LD_PRELOAD": path + "/clock.so", "CLOCK_JUMP": String(seconds)]
        )
        #expect(client.output.contains("accepted"), "\(client.output)")
    }
}
