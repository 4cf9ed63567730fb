"""What the tests here are to notice; tests/mutations.py says how an entry reads and runs them."""
MUTATIONS = [
    ("api-run", "events tell what the engine decided", "src/api/driver.cpp", ".run = {e.run.begin(), e.run.end()}", ".run = std::vector<uint8_t>(e.run.size(), 1)",
     "test_api", "Engine.WritesWhat*"),
    ("api-cancel", "a cancelled text ends and gives its memory back", "src/api/driver.cpp", "case Command::cancel: scheduler_->cancel(t.id); break;",
     "case Command::cancel: break;", "test_api", "Engine.ACancelled*"),
    ("api-one-stepper", "one thread makes a step, whoever waits", "src/api/driver.cpp", "    if (busy_ || closed_ || turn_ != 0) {", "    if (closed_ || turn_ != 0) {",
     "test_api", "Engine.Threads*"),
    ("api-failed-step", "a failed step is an error of its requests alone", "src/api/driver.cpp", "    make_scheduler();  // what has thrown", "    // what has thrown",
     "test_api", "Engine.AFailedStep*"),
    ("api-dials", "a request's past keeps its dials", "src/api/request.cpp", "policies.push_back({d.position, model.policy(d.dial)});",
     "policies.push_back({d.position, model.policy(r.dials[0].dial)});", "test_api", "Engine.ADialMayChange"),
]
