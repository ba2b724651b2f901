import { adminContract } from "./admin-contract.ts";

adminContract("uws");
adminContract("ws");
