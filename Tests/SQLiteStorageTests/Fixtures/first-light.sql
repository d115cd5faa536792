BEGIN TRANSACTION;
CREATE TABLE assignment (
    id TEXT PRIMARY KEY NOT NULL, run_id TEXT NOT NULL, round INTEGER NOT NULL, attempt INTEGER NOT NULL,
    client_id TEXT NOT NULL REFERENCES client (id), state TEXT NOT NULL, code TEXT, created_at DOUBLE NOT NULL,
    deadline DOUBLE NOT NULL, update_sha256 TEXT, update_bytes INTEGER, example_count INTEGER,
    UNIQUE (run_id, round, attempt, client_id),
    FOREIGN KEY (run_id, round, attempt) REFERENCES round (run_id, number, attempt));
INSERT INTO "assignment" VALUES('asg_3401f625ddbc3d7f224c','run_1d95b97457cd509cc0c9',1,1,'clt_ecaf138a273f5cf6b668','accepted',NULL,1.79555454697670650483e+09,1.79555484697670650479e+09,'f811269f4788f268ecfd94c8aded24c03aba1ef9f1b423d05af5b2a20edeefef',2592,1);
INSERT INTO "assignment" VALUES('asg_cd23569d2768f974773a','run_1d95b97457cd509cc0c9',1,1,'clt_bfc1c465620ccc7abdc6','accepted',NULL,1795554547.06396,1795554847.06396,'f811269f4788f268ecfd94c8aded24c03aba1ef9f1b423d05af5b2a20edeefef',2592,1);
INSERT INTO "assignment" VALUES('asg_086e372c3e28cfbe7c3f','run_1d95b97457cd509cc0c9',2,1,'clt_a7ef02881f6024b400b7','accepted',NULL,1.79555454818126964573e+09,1.79555484818126964569e+09,'8b6c6ec01f34e522b5b9574212ed729b9b808598113128ea46a52a393a86df37',2592,1);
CREATE TABLE client (
    id TEXT PRIMARY KEY NOT NULL, population_id TEXT NOT NULL REFERENCES population (id), name TEXT,
    labels TEXT NOT NULL, state TEXT NOT NULL, registration_key TEXT UNIQUE, registered_at DOUBLE NOT NULL);
INSERT INTO "client" VALUES('clt_ecaf138a273f5cf6b668','pop_69beaef74cb3e6c72df6',NULL,'{}','active','e91e1fda6243d90b3819cec3bb8d1d37710e85e460426da67ae82a1005e72a1e:88A5A39A-BF7C-47E2-87B4-F48C2DCA2658',1.79555454697389245029e+09);
INSERT INTO "client" VALUES('clt_bfc1c465620ccc7abdc6','pop_69beaef74cb3e6c72df6',NULL,'{}','active','e91e1fda6243d90b3819cec3bb8d1d37710e85e460426da67ae82a1005e72a1e:0765152E-22FC-4E15-964D-B0D54E9088F6',1.79555454706187343598e+09);
INSERT INTO "client" VALUES('clt_a7ef02881f6024b400b7','pop_69beaef74cb3e6c72df6',NULL,'{}','active','e91e1fda6243d90b3819cec3bb8d1d37710e85e460426da67ae82a1005e72a1e:6084BAE4-0943-4D8C-AE44-035DD35CFF55',1.79555454817014384276e+09);
CREATE TABLE grdb_migrations (identifier TEXT NOT NULL PRIMARY KEY);
INSERT INTO "grdb_migrations" VALUES('1: first light');
CREATE TABLE history (
    run_id TEXT NOT NULL REFERENCES run (id), round INTEGER NOT NULL, attempt INTEGER NOT NULL,
    at DOUBLE NOT NULL, state TEXT NOT NULL, cause TEXT NOT NULL);
INSERT INTO "history" VALUES('run_1d95b97457cd509cc0c9',0,0,1.79555454684163117405e+09,'created','created by an operator');
INSERT INTO "history" VALUES('run_1d95b97457cd509cc0c9',0,0,1.79555454685459160799e+09,'running','started by an operator');
INSERT INTO "history" VALUES('run_1d95b97457cd509cc0c9',1,1,1.79555454685490226748e+09,'selecting','opened');
INSERT INTO "history" VALUES('run_1d95b97457cd509cc0c9',1,1,1.79555454707431602482e+09,'aggregating','the report goal was reached');
INSERT INTO "history" VALUES('run_1d95b97457cd509cc0c9',1,1,1.79555454708314538004e+09,'committed','model version 1 was published');
INSERT INTO "history" VALUES('run_1d95b97457cd509cc0c9',2,1,1.7955545470840129852e+09,'selecting','opened');
CREATE TABLE model_version (
    run_id TEXT NOT NULL REFERENCES run (id), version INTEGER NOT NULL, sha256 TEXT NOT NULL,
    bytes INTEGER NOT NULL, created_at DOUBLE NOT NULL, PRIMARY KEY (run_id, version));
INSERT INTO "model_version" VALUES('run_1d95b97457cd509cc0c9',0,'ba1cabf795d6c18ca0b47e920d04c1da7e58037ffed9d4fb792bf701028239fe',2504,1.79555454684881114963e+09);
INSERT INTO "model_version" VALUES('run_1d95b97457cd509cc0c9',1,'48db76f3c8ba4720bb13b599d090b7ec820de83bed0f99a6fc5d2807c9b14627',2504,1.79555454708314323431e+09);
CREATE TABLE population (
    id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL UNIQUE,
    budget_epsilon DOUBLE, budget_delta DOUBLE, created_at DOUBLE NOT NULL);
INSERT INTO "population" VALUES('pop_69beaef74cb3e6c72df6','wards',8.0,1.0e-05,1.79555454677119398117e+09);
CREATE TABLE privacy_charge (
    sequence INTEGER PRIMARY KEY NOT NULL, population_id TEXT NOT NULL REFERENCES population (id),
    run_id TEXT NOT NULL REFERENCES run (id), round INTEGER NOT NULL, attempt INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('reserved', 'committed', 'released')), event TEXT NOT NULL,
    epsilon_after DOUBLE NOT NULL, created_at DOUBLE NOT NULL, previous_hash TEXT NOT NULL,
    row_hash TEXT NOT NULL UNIQUE);
INSERT INTO "privacy_charge" VALUES(1,'pop_69beaef74cb3e6c72df6','run_1d95b97457cd509cc0c9',1,1,'reserved','{"kind":"gaussian","mode":"central","noiseMultiplier":3,"parameterCount":508,"participationCap":3,"relation":"zero_out"}',1.2710877670994022992e+00,1795554546.85501,'0000000000000000000000000000000000000000000000000000000000000000','778bf62b898c3954e25bc8183e5f0d6eba219842fd2664c410aec7ac1b827655');
INSERT INTO "privacy_charge" VALUES(2,'pop_69beaef74cb3e6c72df6','run_1d95b97457cd509cc0c9',1,1,'committed','{"kind":"gaussian","mode":"central","noiseMultiplier":3,"parameterCount":508,"participationCap":3,"relation":"zero_out"}',1.2710877670994022992e+00,1795554547.08301,'778bf62b898c3954e25bc8183e5f0d6eba219842fd2664c410aec7ac1b827655','bfb5fed4cca3ec32b537329d53887cfba9c1157e732f9d558300408bf3eb7da0');
INSERT INTO "privacy_charge" VALUES(3,'pop_69beaef74cb3e6c72df6','run_1d95b97457cd509cc0c9',2,1,'reserved','{"kind":"gaussian","mode":"central","noiseMultiplier":3,"parameterCount":508,"participationCap":3,"relation":"zero_out"}',1.86636931831287711247e+00,1.79555454708401012421e+09,'bfb5fed4cca3ec32b537329d53887cfba9c1157e732f9d558300408bf3eb7da0','5f32a07833e2bb01c3bed8541e078105c3d89d6ba9d4a0cad4e3107680391cc5');
CREATE TABLE round (
    run_id TEXT NOT NULL REFERENCES run (id), number INTEGER NOT NULL, attempt INTEGER NOT NULL,
    phase TEXT NOT NULL, reason TEXT, opened_at DOUBLE NOT NULL, deadline DOUBLE NOT NULL, closed_at DOUBLE,
    assigned INTEGER NOT NULL, accepted INTEGER NOT NULL, rejected INTEGER NOT NULL, failed INTEGER NOT NULL,
    expired INTEGER NOT NULL, bytes_up INTEGER NOT NULL, example_count INTEGER NOT NULL, model_sha256 TEXT,
    epsilon DOUBLE, PRIMARY KEY (run_id, number, attempt));
INSERT INTO "round" VALUES('run_1d95b97457cd509cc0c9',1,1,'committed',NULL,1.79555454685490179064e+09,1.79555460685490179059e+09,1.79555454708314323431e+09,2,2,0,0,0,5184,2,'48db76f3c8ba4720bb13b599d090b7ec820de83bed0f99a6fc5d2807c9b14627',1.2710877670994022992e+00);
INSERT INTO "round" VALUES('run_1d95b97457cd509cc0c9',2,1,'selecting',NULL,1.7955545470840129852e+09,1.79555460708401298528e+09,NULL,1,1,0,0,0,2592,1,NULL,NULL);
CREATE TABLE run (
    id TEXT PRIMARY KEY NOT NULL, population_id TEXT NOT NULL REFERENCES population (id), name TEXT NOT NULL,
    specification TEXT NOT NULL, state TEXT NOT NULL, reason TEXT, created_at DOUBLE NOT NULL);
INSERT INTO "run" VALUES('run_1d95b97457cd509cc0c9','pop_69beaef74cb3e6c72df6','notes','{"aggregation":{"example_cap":1000000,"optimizer":{"learning_rate":1,"name":"sgd"},"rule":"mean","value_bound":64,"weighting":"uniform"},"cohort":{"goal":2,"max_participations":3,"minimum":2,"over_selection":1,"policy":"first_come","report_timeout_s":300,"selection_timeout_s":60},"kind":"training","model":{"architecture":"cifg-lstm","config":{"embedding_dim":4,"hidden_dim":8,"vocab_size":52},"initialization":{"seed":"42"}},"name":"notes","population":"wards","privacy":{"clipping":{"norm":1,"policy":"flat"},"mechanism":"gaussian","mode":"central","noise_multiplier":3},"rounds":3,"training":{"encoding":"f32","limits":{"max_examples":100000,"max_steps":1000},"local":{"batch_size":4,"clip":5,"epochs":1,"learning_rate":1,"optimizer":"sgd"},"submit":"delta"}}','running',NULL,1.79555454684162926672e+09);
CREATE TABLE token (
    hash TEXT PRIMARY KEY NOT NULL, role TEXT NOT NULL CHECK (role IN ('admin', 'enrollment', 'client')),
    population_id TEXT REFERENCES population (id), client_id TEXT, uses_left INTEGER,
    expires_at DOUBLE, created_at DOUBLE NOT NULL);
INSERT INTO "token" VALUES('5bc4a4c497c7c370d3335ff2a8389298840eb24d1ca6b0f74a89770a36b74c1e','admin',NULL,NULL,NULL,NULL,1.79555454579569077487e+09);
INSERT INTO "token" VALUES('e91e1fda6243d90b3819cec3bb8d1d37710e85e460426da67ae82a1005e72a1e','enrollment','pop_69beaef74cb3e6c72df6',NULL,2,NULL,1.79555454691325378415e+09);
INSERT INTO "token" VALUES('0309d79f44d7b086ac02df5b013ccb74ac296a5ec9c5fceaf13251ee17f3a454','client',NULL,'clt_ecaf138a273f5cf6b668',NULL,NULL,1.79555454697389459605e+09);
INSERT INTO "token" VALUES('e78d086dc10450f2b2973a0b7d1b789b0c3cd46af0368e96f299de203472e3bb','client',NULL,'clt_bfc1c465620ccc7abdc6',NULL,NULL,1.79555454706187486648e+09);
INSERT INTO "token" VALUES('8f1e50d6886e533e2ab35f82ea9a261ba48c978126f5226c73aabc976dc02a7b','client',NULL,'clt_a7ef02881f6024b400b7',NULL,NULL,1.79555454817014598849e+09);
CREATE TRIGGER privacy_charge_is_append_only_update BEFORE UPDATE ON privacy_charge
    BEGIN SELECT RAISE(ABORT, 'the privacy ledger is append-only'); END;
CREATE TRIGGER privacy_charge_is_append_only_delete BEFORE DELETE ON privacy_charge
    BEGIN SELECT RAISE(ABORT, 'the privacy ledger is append-only'); END;
CREATE INDEX history_by_round ON history (run_id, round);
COMMIT;